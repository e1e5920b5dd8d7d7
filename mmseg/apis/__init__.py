"""What other people's programs call. Imported on first use: models and data sets take seconds to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmseg.apis.inference import inference_segmentor, init_segmentor
    from mmseg.apis.segmentation import SegmentOptions, segment_video
    from mmseg.apis.video_stream import VideoStream
    from mmseg.datasets.sources import FrameSource, video_sources
    from mmseg.models.opening import from_pretrained
    from mmseg.models.sharing import push_to_hub, save_pretrained

__all__ = [
    "FrameSource",
    "SegmentOptions",
    "VideoStream",
    "from_pretrained",
    "inference_segmentor",
    "init_segmentor",
    "push_to_hub",
    "save_pretrained",
    "segment_video",
    "video_sources",
]

_HOMES = {
    "FrameSource": "mmseg.datasets.sources",
    "VideoStream": "mmseg.apis.video_stream",
    "from_pretrained": "mmseg.models.opening",
    "push_to_hub": "mmseg.models.sharing",
    "save_pretrained": "mmseg.models.sharing",
    "inference_segmentor": "mmseg.apis.inference",
    "init_segmentor": "mmseg.apis.inference",
    "SegmentOptions": "mmseg.apis.segmentation",
    "segment_video": "mmseg.apis.segmentation",
    "video_sources": "mmseg.datasets.sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
