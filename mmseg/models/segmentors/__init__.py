"""Segmentors: a backbone and a head, with a loss for training and a stream for inference."""

from mmseg.models.base import Segmentor, VideoModel
from mmseg.models.segmentors.block import BlockSegmentor, BlockStream
from mmseg.models.segmentors.clip import ClipSegmentor, ClipStream
from mmseg.models.segmentors.frame import FrameSegmentor, FrameStream
from mmseg.models.segmentors.frame_flow import TwoStreamSegmentor
from mmseg.models.stream import Stream

__all__ = [
    "BlockSegmentor",
    "BlockStream",
    "ClipSegmentor",
    "ClipStream",
    "FrameSegmentor",
    "FrameStream",
    "Segmentor",
    "Stream",
    "TwoStreamSegmentor",
    "VideoModel",
]
