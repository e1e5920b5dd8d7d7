"""A trained model on any video: from a config and a checkpoint to label maps in three lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mmseg.datasets.sources import FrameSource, Source
from mmseg.datasets.transforms import TestPipeline
from mmseg.datasets.transforms.test_time import AUGMENT_RATIOS
from mmseg.engine.predict import predict, stream_settings
from mmseg.errors import ConfigError
from mmseg.making.flow import DEFAULT_FLOW, FlowNetwork, flow_network
from mmseg.making.flow_frames import with_flow
from mmseg.models.base import VideoModel
from mmseg.models.opening import init_segmentor, known_device
from mmseg.registry import DATASETS, class_of
from mmseg.structures import Frame

__all__ = [
    "frames_with_flow",
    "inference_segmentor",
    "init_segmentor",
    "known_device",
    "pipeline_of",
    "require_model",
    "settings_of",
]


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
        ConfigError: no model of this package, or the weights of the flow network cannot be had; or the model follows
            objects, which takes masks.
    """
    require_model(model)
    if "given" in (model.view_inputs or ()):
        raise ConfigError(
            f"inference_segmentor with a {type(model).__name__}, to which no mask is shown here",
            "a model that needs none",
            "give masks to VideoStream(model).step(frame, mask=mask), or to tools/infer.py --mask FIRST.png",
        )
    frames = frames_with_flow(model, FrameSource(video), flow)
    return [result.labels for result in predict(model, frames, pipeline_of(model, aug_test), settings_of(model))]


def require_model(model: Any) -> None:
    """Raise ConfigError unless `model` is one of this package, or what ``torch.compile`` makes of one."""
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, VideoModel):
        raise ConfigError(f"a {type(model).__name__} as model", "a model of this package", "make it by init_segmentor")


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
    ratios = getattr(class_of(DATASETS, test), "augment_ratios", AUGMENT_RATIOS)
    return TestPipeline(test["pipeline"], aug_test, "data.test.pipeline", ratios)
