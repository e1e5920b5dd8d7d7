"""What other people's programs call. Imported on first use: models and data sets take seconds to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmseg.apis.inference import VideoStream, inference_segmentor, init_segmentor
    from mmseg.apis.video import segment_video
    from mmseg.datasets.sources import FrameSource

__all__ = ["FrameSource", "VideoStream", "inference_segmentor", "init_segmentor", "segment_video"]

_HOMES = {
    "FrameSource": "frames",
    "VideoStream": "inference",
    "inference_segmentor": "inference",
    "init_segmentor": "inference",
    "segment_video": "video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
