"""A trained model on any video: from a config and a checkpoint to label maps in three lines."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from mmseg.compat import translate
from mmseg.config import load_config
from mmseg.datasets.sources import FrameSource, Source
from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.predict import VideoPredictor
from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from mmseg.models.base import BaseSegmentor
from mmseg.registry import DATASETS
from mmseg.weights import load_checkpoint


def init_segmentor(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> BaseSegmentor:
    """Build the model of a config for inference.

    Args:
        config: a config file (it is executed) or a loaded config.
        checkpoint: weights to load; None leaves the random initialisation.
        device: where the model goes.
        options: dotted config keys and their new values.

    Returns:
        The model in eval mode, with ``cfg``, ``dilation``, and ``CLASSES`` and ``PALETTE`` of the checkpoint, else of
        the data set's type; None if neither fits the number of classes.

    Raises:
        ConfigError: the config is missing, broken or has unknown keys.
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
        cfg.merge_from_dict(dict(options or {}))
    else:
        cfg = load_config(config, options)
    model_cfg = {**cfg.model, "pretrained": None}  # the checkpoint holds the backbone as well
    model = build_segmentor(model_cfg, cfg.get("train_cfg"), cfg.get("test_cfg"))
    meta = load_checkpoint(model, checkpoint, purpose="test").get("meta", {}) if checkpoint is not None else {}
    test = cfg.get("data", {}).get("test", {})
    dataset = DATASETS.get(translate("dataset", dict(test))["type"]) if "type" in test else None
    for name in ("CLASSES", "PALETTE"):
        known = (meta.get(name), getattr(dataset, name, None))
        setattr(model, name, next((v for v in known if v is not None and len(v) == model.num_classes), None))
    if "dilation" in test:
        model.dilation = tuple(test["dilation"])
    model.cfg = cfg
    return model.to(_device(device)).eval()


def inference_segmentor(model: BaseSegmentor, video: Source, aug_test: bool = False) -> list[np.ndarray]:
    """Label maps (H, W) uint8 of all frames of one video.

    Args:
        model: from :func:`init_segmentor`.
        video: a video file, a folder of pictures, a camera, or frames: see :class:`FrameSource`.
        aug_test: average over scales and flips.

    Raises:
        DataError: frames that cannot be read or differ in size.
    """
    stream = VideoStream(model, aug_test)
    return [stream.step(frame.image) for frame in FrameSource(video)]


class VideoStream:
    """A live video: frames go in one by one, label maps come out; memory use does not grow.

    Args:
        model: from :func:`init_segmentor`.
        aug_test: average over scales and flips.
        amp: type to compute in under autocast; None computes in float32.
        video: name of the video, for models that keep something per video.
        context: further arguments of ``model.stream``.

    Raises:
        ConfigError: the model has no config with a test pipeline.
    """

    def __init__(
        self,
        model: BaseSegmentor,
        aug_test: bool = False,
        amp: torch.dtype | None = None,
        video: str | None = None,
        **context: Any,
    ) -> None:
        self._predictor = VideoPredictor(model, pipeline_of(model, aug_test), video, amp, **context)

    def step(self, frame: np.ndarray) -> np.ndarray:
        """The label map (H, W) uint8 of the next frame (H, W, 3) uint8 BGR, as OpenCV reads it.

        Raises:
            DataError: no such array, or another size than the frames before it (call :meth:`reset` at a cut).
        """
        return self._predictor.step(frame).cpu().numpy()

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self._predictor.reset()


def pipeline_of(model: BaseSegmentor, aug_test: bool = False) -> TestPipeline:
    """The test pipeline of the config that `model` was made from. Raises ConfigError if it has none."""
    test = getattr(model, "cfg", {}).get("data", {}).get("test", {})
    if "pipeline" not in test:
        raise ConfigError(
            "the model's config has no data.test.pipeline", "a test pipeline", "make the model with init_segmentor"
        )
    return TestPipeline(test["pipeline"], aug_test=aug_test, where="data.test.pipeline")


def _device(name: str | torch.device) -> torch.device:
    """`name` as a device. Raises ConfigError for an unknown one, or a GPU that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}", "cpu, cuda or cuda:N", "fix the name") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}, {torch.cuda.device_count()} GPUs found", "a GPU of this machine", "use cpu"
        )
    return device
