"""Bilinear resizing as all models here mean it: half-pixel centres, no antialiasing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (align_corners False) resize of `x` (n, C, h, w) to `size`; `x` itself if it has that size."""
    size = tuple(size)
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(_with_visible_layout(x), size=size, mode="bilinear", align_corners=False)


def halve(x: Tensor) -> Tensor:
    """Bilinear resize of `x` (n, C, h, w) to (h // 2, w // 2).

    For even sides every output pixel lies in the middle of four input pixels, so it is their average.
    """
    h, w = x.shape[-2:]
    if h % 2 == 0 and w % 2 == 0:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, size=(h // 2, w // 2), mode="bilinear", align_corners=False)


def _with_visible_layout(x: Tensor) -> Tensor:
    """`x` with the strides that its layout has for any batch size.

    Views leave an arbitrary stride on a batch axis of length 1. PyTorch then takes a channels-last map for one of no
    known layout, and resizing it on CPU for up to five times as long.
    """
    n, channels, _, w = x.shape
    if n == 1 and x.stride(0) != x.numel() and x.is_contiguous(memory_format=torch.channels_last):
        return x.as_strided(x.shape, (x.numel(), 1, w * channels, channels))
    return x
