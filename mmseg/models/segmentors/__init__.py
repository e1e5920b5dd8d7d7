"""Segmentors: a backbone and a head, with a loss for training and a stream for inference."""

from mmseg.models.base import Segmentor, Stream, VideoModel
from mmseg.models.segmentors.clip import ClipSegmentor, ClipStream
from mmseg.models.segmentors.frame import FrameSegmentor, FrameStream

__all__ = ["ClipSegmentor", "ClipStream", "FrameSegmentor", "FrameStream", "Segmentor", "Stream", "VideoModel"]
