"""Segmentors: a backbone and a head, with a loss for training and a stream for inference."""

from mmseg.models.base import BaseSegmentor, Stream
from mmseg.models.segmentors.clip import ClipSegmentor, ClipStream
from mmseg.models.segmentors.frame import FrameSegmentor, FrameStream

__all__ = ["BaseSegmentor", "ClipSegmentor", "ClipStream", "FrameSegmentor", "FrameStream", "Stream"]
