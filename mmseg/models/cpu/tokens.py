"""Passes over tokens and maps by kernels, where there are any."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.kernels import passes
from mmseg.models.cpu.kernels.library import kernels_for


def gelu(x: Tensor) -> Tensor:
    """``F.gelu(x)``, the exact one."""
    return passes.gelu(x) if kernels_for(x) else F.gelu(x)


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """``F.layer_norm(x, shape, weight, bias, eps)``."""
    if kernels_for(x) and all(_is_row(part, x) for part in (weight, bias)) and tuple(shape) == x.shape[-1:]:
        return passes.layer_norm(x, weight, bias, eps)
    return F.layer_norm(x, shape, weight, bias, eps)


def _is_row(part: Tensor | None, x: Tensor) -> bool:
    return part is None or (part.dtype == x.dtype and part.shape == x.shape[-1:] and part.device == x.device)


def add_resized(x: Tensor, maps: Sequence[Tensor]) -> bool:
    """`x` (n, C, h, w) += `maps` [(n, C, h_i, w_i)] after bilinear resizing, if there is a kernel for them.

    Returns:
        Whether it has been done.
    """
    kind = x.dtype, x.device, x.shape[:2]
    if not kernels_for(x) or not all((part.dtype, part.device, part.shape[:2]) == kind for part in maps):
        return False
    pixels = x.permute(0, 2, 3, 1)
    if not maps or not pixels.is_contiguous() or not all(part.numel() for part in maps):
        return False
    passes.add_resized(pixels, [part.permute(0, 2, 3, 1) for part in maps])
    return True
