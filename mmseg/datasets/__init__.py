"""Video data sets: clips for training, streams of frames for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.datasets.base import VideoDataset, WholeVideo
from mmseg.datasets.davis_vos import DAVISDataset
from mmseg.datasets.loader import TrainLoader, build_train_loader
from mmseg.datasets.prefetch import read_ahead
from mmseg.datasets.static_images import StaticImageDataset
from mmseg.datasets.video_files import VideoFiles
from mmseg.datasets.vos_clips import VOSClipDataset
from mmseg.datasets.vos_pairs import VOSDataset
from mmseg.datasets.vspw import VSPWDataset
from mmseg.datasets.vspw_clips import VSPWClipDataset
from mmseg.datasets.wrappers import ConcatDataset, RepeatDataset, Wrapper, check_same_classes
from mmseg.datasets.youtube_vos import YouTubeVOSDataset
from mmseg.errors import ConfigError
from mmseg.registry import DATASETS, build

__all__ = [
    "ConcatDataset",
    "DAVISDataset",
    "RepeatDataset",
    "StaticImageDataset",
    "TrainLoader",
    "VOSClipDataset",
    "VOSDataset",
    "VSPWClipDataset",
    "VSPWDataset",
    "VideoDataset",
    "VideoFiles",
    "WholeVideo",
    "Wrapper",
    "YouTubeVOSDataset",
    "build_dataset",
    "build_train_loader",
    "check_same_classes",
    "read_ahead",
]


def build_dataset(
    cfg: Mapping[str, Any] | Sequence[Mapping[str, Any]], where: str = "data.train", **extra: Any
) -> VideoDataset | Wrapper:
    """Build a data set from its config.

    Args:
        cfg: ``dict(type='VSPWDataset', ...)``; in training also a list of data sets, which are joined,
            ``dict(type='ConcatDataset', datasets=[...])``, which means the same, or
            ``dict(type='RepeatDataset', times=..., dataset=...)`` around one data set or a list.
        where: dotted path of `cfg` in the config file, for error messages.
        extra: further arguments of the data sets of videos, which win over those of `cfg`.

    Raises:
        ConfigError: an unknown type or key, or several data sets in testing.
        DataError: the files are not as they should be.
    """
    if isinstance(cfg, list | tuple):
        _require_training(f"a list of {len(cfg)} data sets", where, extra)
        return build(DATASETS, dict(type="ConcatDataset"), where, datasets=_build_all(cfg, where, extra))
    kind = cfg.get("type") if isinstance(cfg, Mapping) else None
    if kind in ("RepeatDataset", "ConcatDataset"):
        _require_training(f"a {kind}", where, extra)
    if kind == "RepeatDataset" and "dataset" in cfg:
        return build(DATASETS, cfg, where, dataset=build_dataset(cfg["dataset"], f"{where}.dataset", **extra))
    if kind == "ConcatDataset" and isinstance(cfg.get("datasets"), list | tuple):
        return build(DATASETS, cfg, where, datasets=_build_all(cfg["datasets"], f"{where}.datasets", extra))
    return build(DATASETS, cfg, where, **extra)


def _build_all(cfgs: Sequence[Any], where: str, extra: Mapping[str, Any]) -> list[VideoDataset | Wrapper]:
    return [build_dataset(cfg, f"{where}.{number}", **extra) for number, cfg in enumerate(cfgs)]


def _require_training(what: str, where: str, extra: Mapping[str, Any]) -> None:
    if extra.get("test_mode"):
        raise ConfigError(
            f"{where}: {what}",
            "one data set, since results are scored and written by the names of its videos",
            f"give {where} as one dict, and test several sets one after the other with --options {where}.data_root=DIR",
        )
