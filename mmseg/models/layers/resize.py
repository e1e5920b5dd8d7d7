"""Bilinear resizing as all models here mean it: half-pixel centres, no antialiasing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg.models.cpu.layout import visible_layout
from mmseg.models.cpu.tokens import add_resized as add_on_cpu
from mmseg.models.layers.size_tables import table


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear (align_corners False) resize of `x` (n, C, h, w) to `size`; `x` itself if it has that size."""
    size = tuple(size)
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(visible_layout(x), size=size, mode="bilinear", align_corners=False)


def add_resized(x: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """`x` (n, C, h, w) plus `maps` [(n, C, h_i, w_i)] after :func:`resize`; any of them may be written into."""
    if add_on_cpu(x, maps):
        return x
    parts = itertools.chain((resize(part, x.shape[-2:]) for part in reversed(maps)), [x])
    out = next(parts)
    for part in parts:
        out += part
    return out


def upsample_logits(x: Tensor, size: tuple[int, int]) -> Tensor:
    """:func:`resize` of logits, at least in float32.

    They are compared next, which needs that precision anyway, and a CPU interpolates faster in it than in bfloat16.
    """
    return resize(x if x.dtype == torch.float64 else x.float(), size)


def halve(x: Tensor) -> Tensor:
    """Bilinear resize of `x` (n, C, h, w) to (h // 2, w // 2).

    For even sides every output pixel lies in the middle of four input pixels, so it is their average.
    """
    h, w = x.shape[-2:]
    if h % 2 == 0 and w % 2 == 0:
        return _Halved.apply(x) if _learns_channels_last(x) else F.avg_pool2d(x, 2)
    return resize(x, (h // 2, w // 2))


@table
def linear_weights(
    length: int, resized: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """What bilinear resizing of a line is: a matrix (resized, length) with two entries in a row that add up to 1.

    It is kept on its device, so that only the first loss waits for a GPU to get it.
    """
    source = (torch.arange(resized, dtype=torch.float64) + 0.5) * (length / resized) - 0.5
    lower = source.clamp_(min=0).floor().long().clamp_(max=length - 1)
    upper, rows, share = (lower + 1).clamp_(max=length - 1), torch.arange(resized), source - lower
    matrix = torch.zeros(resized, length, dtype=torch.float64)
    matrix[rows, lower] += 1 - share
    matrix[rows, upper] += share
    return matrix.to(dtype).to(device)


# --- gradients on a CPU, in the memory order of their maps ------------------------------------------------------------


def _learns_channels_last(x: Tensor) -> bool:
    """Whether `x` is what PyTorch's own backward functions would rewrite in another memory order, and back."""
    graph = torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()
    if not graph or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class _Halved(torch.autograd.Function):
    """Averages of two by two pixels of a channels-last map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        quarter = grad.permute(0, 2, 3, 1)[:, :, None, :, None] * 0.25  # (n, h, 1, w, 1, C)
        return quarter.expand(-1, -1, 2, -1, 2, -1).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
