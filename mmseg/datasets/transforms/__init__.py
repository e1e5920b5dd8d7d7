"""Transforms of whole clips; an image is a clip of one frame.

A transform is called with a dict and returns it changed: ``img`` list of (H, W, 3) frames, ``flow`` list of pictures of
their optical flow (absent for most models), ``gt`` list of (H, W) uint8 labels (absent in testing), ``given`` list of
(H, W) object ids that are shown to a model (testing only), ``rng`` a numpy Generator, the only chance, ``meta`` what is
known about the target frame, ``steps`` what was done to the pictures (:mod:`mmseg.structures`), and what the data set
gives to the loaders (``frames``, ``flows``, ``labels``, ``read_labels``, ``reduce_zero_label``).
"""

from mmseg.datasets.transforms.colour import (
    Normalize,
    PhotoMetricDistortion,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from mmseg.datasets.transforms.compose import Compose
from mmseg.datasets.transforms.formatting import Collect, ImageToTensor, PackClip
from mmseg.datasets.transforms.geometry import Pad, RandomCrop, RandomFlip, Resize, ResizeToMultiple, rescale_size
from mmseg.datasets.transforms.loading import LoadFrames, LoadLabels
from mmseg.datasets.transforms.short_side import ResizeShortSide
from mmseg.datasets.transforms.test_time import MultiScaleFlipAug, TestPipeline

__all__ = [
    "Collect",
    "Compose",
    "ImageToTensor",
    "LoadFrames",
    "LoadLabels",
    "MultiScaleFlipAug",
    "Normalize",
    "PackClip",
    "Pad",
    "PhotoMetricDistortion",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "ResizeShortSide",
    "ResizeToMultiple",
    "TestPipeline",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "rescale_size",
]
