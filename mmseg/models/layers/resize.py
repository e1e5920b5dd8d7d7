"""Bilinear resizing as all models here mean it: half-pixel centres, no antialiasing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.layout import visible_layout


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (align_corners False) resize of `x` (n, C, h, w) to `size`; `x` itself if it has that size."""
    size = tuple(size)
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(visible_layout(x), size=size, mode="bilinear", align_corners=False)


def halve(x: Tensor) -> Tensor:
    """Bilinear resize of `x` (n, C, h, w) to (h // 2, w // 2).

    For even sides every output pixel lies in the middle of four input pixels, so it is their average.
    """
    h, w = x.shape[-2:]
    if h % 2 == 0 and w % 2 == 0:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, size=(h // 2, w // 2), mode="bilinear", align_corners=False)
