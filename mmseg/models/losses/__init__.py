"""Losses of the segmentation heads."""

from mmseg.models.losses.cross_entropy import CrossEntropyLoss
from mmseg.models.losses.upsampled_ce import upsampled_cross_entropy

__all__ = ["CrossEntropyLoss", "upsampled_cross_entropy"]
