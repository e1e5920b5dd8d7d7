"""Segmentors: a backbone and a head, with a loss for training and a stream for inference."""

from mmseg.models.segmentors.base import BaseSegmentor, Stream
from mmseg.models.segmentors.clip_segmentor import ClipSegmentor, ClipStream
from mmseg.models.segmentors.frame_segmentor import FrameSegmentor, FrameStream

__all__ = ["BaseSegmentor", "ClipSegmentor", "ClipStream", "FrameSegmentor", "FrameStream", "Stream"]
