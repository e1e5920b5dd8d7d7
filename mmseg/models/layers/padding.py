"""Padding to sides that a network takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Margins = tuple[int, int, int, int]  # left, right, top, bottom


def centred_margins(height: int, width: int, divisor: int) -> Margins:
    """What a frame lacks to multiples of `divisor`: half on each side, an odd pixel on the right and at the bottom."""
    across, down = -width % divisor, -height % divisor
    return across // 2, across - across // 2, down // 2, down - down // 2


def pad(x: Tensor, margins: Margins) -> Tensor:
    """`x` (..., H, W) with zeros around it; `x` itself where the margins are 0."""
    return F.pad(x, margins) if any(margins) else x


def unpad(x: Tensor, margins: Margins) -> Tensor:
    """`x` (..., H, W) without margins."""
    left, right, top, bottom = margins
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
