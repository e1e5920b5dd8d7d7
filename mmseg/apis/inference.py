"""A trained model on any video: from a config and a checkpoint to label maps in three lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmseg.apis.carried_config import config_of
from mmseg.compat import translate
from mmseg.config import check_config, load_config, override, require
from mmseg.datasets.sources import FrameSource, Source
from mmseg.datasets.transforms import TestPipeline
from mmseg.datasets.transforms.test_time import AUGMENT_RATIOS
from mmseg.engine.predict import predict, stream_settings
from mmseg.errors import ConfigError
from mmseg.making.flow import DEFAULT_FLOW, FlowNetwork, flow_network
from mmseg.making.flow_frames import with_flow
from mmseg.mmengine_names import Config
from mmseg.models import build_segmentor
from mmseg.models.base import VideoModel
from mmseg.registry import DATASETS
from mmseg.structures import Frame
from mmseg.values import checked
from mmseg.weights import load_checkpoint


@checked
def init_segmentor(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> VideoModel:
    """Build the model of a config for inference.

    Args:
        config: a config file (it is executed) or a loaded config; None takes that which the checkpoint carries, and
            executes nothing (:func:`mmseg.apis.carried_config.config_of`).
        checkpoint: weights to load; None leaves the random initialisation.
        device: where the model goes: ``cpu``, ``cuda`` or ``cuda:N``.
        options: dotted config keys and their new values.

    Returns:
        The model in eval mode, with ``cfg``, and with ``CLASSES`` and ``PALETTE`` of the checkpoint, else of
        the data set's type; None if neither fits the number of classes. ``trained_classes``: those that the checkpoint
        names, None if it does not.

    Raises:
        ConfigError: the config is missing, broken or has unknown keys; no such device.
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    if config is None:
        cfg = config_of(_given(checkpoint), options)
    else:
        cfg = override(config, options or {}) if isinstance(config, Config) else load_config(config, options)
    require(cfg, "model")
    check_config(cfg, tell=True)
    model_cfg = {**cfg.model, "pretrained": None}  # the checkpoint holds the backbone as well
    model = build_segmentor(model_cfg, cfg.get("train_cfg"), cfg.get("test_cfg"))
    meta = load_checkpoint(model, checkpoint, purpose="test").get("meta", {}) if checkpoint is not None else {}
    test = (cfg.get("data") or {}).get("test") or {}
    dataset = DATASETS.get(translate("dataset", dict(test))["type"]) if "type" in test else None
    for name in ("CLASSES", "PALETTE"):
        known = (meta.get(name), getattr(dataset, name, None))
        setattr(model, name, next((v for v in known if v is not None and len(v) == model.num_classes), None))
    model.trained_classes = meta.get("CLASSES")
    model.cfg = cfg
    return model.to(known_device(device)).eval()


def _given(checkpoint: str | Path | None) -> str | Path:
    if checkpoint is None:
        raise ConfigError("config = None without a checkpoint", "one of them", "give config=, or checkpoint=, or both")
    return checkpoint


def inference_segmentor(
    model: VideoModel, video: Source, aug_test: bool = False, flow: str | FlowNetwork = DEFAULT_FLOW
) -> list[np.ndarray | None]:
    """Label maps (H, W) uint8 of all frames of one video; None where the model has nothing to say.

    Args:
        model: from :func:`init_segmentor`.
        video: a video file, a folder of pictures, a camera, or frames: see :class:`FrameSource`.
        aug_test: average over scales and flips.
        flow: what computes the optical flow, for models that look at it; see :func:`mmseg.making.flow.flow_network`.

    Raises:
        DataError: frames that cannot be read or differ in size.
        ConfigError: the weights of the flow network cannot be had.
    """
    frames = frames_with_flow(model, FrameSource(video), flow)
    return [result.labels for result in predict(model, frames, pipeline_of(model, aug_test), settings_of(model))]


def frames_with_flow(model: VideoModel, frames: Iterable[Frame], flow: str | FlowNetwork | None) -> Iterable[Frame]:
    """`frames`, with the pictures of their optical flow for a model that looks at it. Raises ConfigError."""
    if not model.takes_flow:
        return frames
    return with_flow(frames, flow_network(flow or DEFAULT_FLOW, device=next(model.parameters()).device))


def settings_of(model: VideoModel) -> dict[str, Any]:
    """The stream settings of the config that `model` was made from."""
    cfg = getattr(model, "cfg", {})
    return stream_settings((cfg.get("data") or {}).get("test"), model.test_cfg, model)


def pipeline_of(model: VideoModel, aug_test: bool = False) -> TestPipeline:
    """The test pipeline of the config that `model` was made from. Raises ConfigError if it has none."""
    test = (getattr(model, "cfg", {}).get("data") or {}).get("test") or {}
    if "pipeline" not in test:
        raise ConfigError(
            "the model's config has no data.test.pipeline",
            "a test pipeline",
            "make the model with init_segmentor, of a config with data.test",
        )
    dataset = DATASETS.get(translate("dataset", dict(test))["type"]) if "type" in test else None
    ratios = getattr(dataset, "augment_ratios", AUGMENT_RATIOS)
    return TestPipeline(test["pipeline"], aug_test, "data.test.pipeline", ratios)


def known_device(name: str | torch.device) -> torch.device:
    """`name` as a device. Raises ConfigError for another one than a CPU or a GPU, or a GPU that is not there."""
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ConfigError(f"device {str(name)!r}", "cpu, cuda or cuda:N", "fix the name")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}, {torch.cuda.device_count()} GPUs found", "a GPU of this machine", "use cpu"
        )
    return device
