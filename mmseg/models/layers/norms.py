"""Batch norm as what it is in eval mode: a scale and a shift of every channel."""

from __future__ import annotations

from torch import Tensor, nn


def norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in eval mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
