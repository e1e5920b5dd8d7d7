"""Boundary loss: binary cross entropy and dice of a boundary map against the boundary pixels of a mask (GSFM)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_THRESHOLD = 0.1


def boundary_target(masks: Tensor) -> Tensor:
    """Inner boundary pixels of masks (n, H, W) with values from 0 to 1, as 0 or 1.

    The Laplacian is padded with zeros, so that the pixels of an object along the image border are among them.
    """
    kernel = masks.new_full((1, 1, 3, 3), -1.0)
    kernel[0, 0, 1, 1] = 8.0
    return (F.conv2d(masks[:, None], kernel, padding=1)[:, 0] > _THRESHOLD).to(masks.dtype)


def boundary_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The losses (n,) of boundary logits (n, H, W) of objects with masks (n, H, W): cross entropy plus dice."""
    target = boundary_target(masks).flatten(1)
    logits = logits.flatten(1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
    scores = logits.sigmoid()
    overlap = 2 * (scores * target).sum(1) + 1
    return entropy + 1 - overlap / (scores.sum(1) + target.sum(1) + 1)
