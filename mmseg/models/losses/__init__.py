"""Losses of the segmentation heads."""

from mmseg.models.losses.base import PixelLoss
from mmseg.models.losses.cross_entropy import CrossEntropyLoss, upsampled_cross_entropy
from mmseg.models.losses.dice import DiceLoss
from mmseg.models.losses.focal_loss import FocalLoss
from mmseg.models.losses.head_loss import HeadLoss
from mmseg.models.losses.ohem import OHEMPixelSampler

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "HeadLoss",
    "OHEMPixelSampler",
    "PixelLoss",
    "upsampled_cross_entropy",
]
