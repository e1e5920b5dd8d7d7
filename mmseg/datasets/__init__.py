"""Video data sets: clips for training, streams of frames for testing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg.datasets.base import VideoDataset, VideoFiles, WholeVideo
from mmseg.datasets.loader import TrainLoader, build_train_loader
from mmseg.datasets.prefetch import read_ahead
from mmseg.datasets.vspw import VSPWDataset
from mmseg.datasets.wrappers import RepeatDataset
from mmseg.registry import DATASETS, build

__all__ = [
    "RepeatDataset",
    "TrainLoader",
    "VSPWDataset",
    "VideoDataset",
    "VideoFiles",
    "WholeVideo",
    "build_dataset",
    "build_train_loader",
    "read_ahead",
]


def build_dataset(cfg: Mapping[str, Any], where: str = "data.train", **extra: Any) -> VideoDataset | RepeatDataset:
    """Build a data set from its config dict.

    Args:
        cfg: ``dict(type='VSPWDataset', ...)``, or ``dict(type='RepeatDataset', times=..., dataset=dict(...))``.
        where: dotted path of `cfg` in the config file, for error messages.
        extra: further arguments of the (inner) data set, which win over those of `cfg`.

    Raises:
        ConfigError: an unknown type or key.
        DataError: the files are not as they should be.
    """
    repeats = isinstance(cfg, Mapping) and cfg.get("type") == "RepeatDataset"
    if repeats and isinstance(cfg.get("dataset"), Mapping):
        inner = build_dataset(cfg["dataset"], f"{where}.dataset", **extra)
        return build(DATASETS, cfg, where, dataset=inner)
    return build(DATASETS, cfg, where, **extra)
