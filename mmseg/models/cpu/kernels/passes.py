"""Passes over tokens that lie between matrix products, by the kernels of ``depthwise.cpp``, ``gelu.cpp``,
``layer_norm.cpp`` and ``resize.cpp``.

As operators of PyTorch, so that fake tensors and dispatch modes see them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg.models.cpu.kernels.library import Kernel

_A_THREAD = 1 << 17  # numbers for which it is worth to start a thread: some 40 microseconds of work

_depthwise_memory = Kernel("depthwise_memory", "i", integer=True)
_depthwise_gelu = Kernel("depthwise_gelu", "pppp" + "iiii" + "pi")
_gelu = Kernel("gelu", "ppii")
_layer_norm = Kernel("layer_norm", "pppp" + "iifi")

_add_resized = Kernel("add_resized", "pppp" + "iiiii" + "pii")

_operators = torch.library.Library("mmseg", "FRAGMENT")
_operators.define(
    "depthwise_gelu(Tensor[] parts, Tensor weight, Tensor? bias, int width, bool above, bool below) -> Tensor"
)
_operators.define("gelu(Tensor x) -> Tensor")
_operators.define("layer_norm(Tensor x, Tensor? weight, Tensor? bias, float eps) -> Tensor")
_operators.define("add_resized(Tensor(a!) x, Tensor[] maps) -> ()")


def depthwise_gelu(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None, width: int, ends: tuple[bool, bool]
) -> Tensor:
    """3x3 convolution of every channel by itself, and the exact GELU of it.

    Args:
        parts: (n, S_i, C) float32, which are rows of `width` pixels, together at least those that one row needs.
        weight: (C, 1, 3, 3) float32.
        bias: (C,) float32.
        ends: whether the map ends above the first row and below the last one, where zeros follow. Otherwise these rows
            are but the neighbours of others.

    Returns:
        (n, S, C), S of all `parts` without the neighbours.
    """
    return torch.ops.mmseg.depthwise_gelu(parts, weight, bias, width, *ends)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU of `x`, float32 of any shape; contiguous."""
    return torch.ops.mmseg.gelu(x)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of `x` (..., C) over its last axis, with weight and bias (C,) if wanted, all float32; contiguous."""
    return torch.ops.mmseg.layer_norm(x, weight, bias, eps)


def add_resized(x: Tensor, maps: Sequence[Tensor]) -> None:
    """`x` (n, h, w, C) += each of `maps` (n, h_i, w_i, C) after bilinear resizing; all float32, `x` contiguous."""
    torch.ops.mmseg.add_resized(x, maps)


def _threads(numbers: int) -> int:
    return max(1, min(torch.get_num_threads(), numbers // _A_THREAD))


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if x is None else x.data_ptr() for x in tensors]


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _depthwise_gelu_on_cpu(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None, width: int, above: bool, below: bool
) -> Tensor:
    parts, weight, bias = [_rows(x) for x in parts], weight.contiguous(), _whole(bias)
    out = _depthwise_gelu_shape(parts, weight, bias, width, above, below)
    n, tokens, channels = out.shape
    pixel, rows = 4 * channels, []  # bytes of a pixel; addresses of all rows
    for sample in range(n):
        rows += [None] * above
        for x in parts:
            first = x.data_ptr() + sample * 4 * x.stride(0)
            rows += range(first, first + x.shape[1] * pixel, width * pixel)
        rows += [None] * below
    memory, sizes = out.new_empty(_depthwise_memory(channels)), (n, tokens // width, width, channels)
    addresses = (ctypes.c_void_p * len(rows))(*rows)
    _depthwise_gelu(addresses, *_addresses(weight, bias, out), *sizes, memory.data_ptr(), _threads(out.numel()))
    return out


def _rows(x: Tensor) -> Tensor:
    """`x` (n, S, C), whose samples are without gaps."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _gelu_on_cpu(x: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _gelu(x.data_ptr(), out.data_ptr(), x.numel(), _threads(x.numel()))
    return out


def _layer_norm_on_cpu(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    x, weight, bias = x.contiguous(), _whole(weight), _whole(bias)
    out, channels = torch.empty_like(x), x.shape[-1]
    sizes = x.numel() // channels, channels
    _layer_norm(*_addresses(x, weight, bias, out), *sizes, eps, _threads(x.numel()))
    return out


def _add_resized_on_cpu(x: Tensor, maps: Sequence[Tensor]) -> None:
    for part in (part for part in maps if part.shape == x.shape):
        x.add_(part)  # weights of zero would make NaN of infinities beside it
    maps = [part.contiguous() for part in maps if part.shape != x.shape]
    if not maps:
        return
    threads, row = _threads(x.numel()), max(part.shape[2] for part in maps) * x.shape[-1]
    memory = x.new_empty(threads * row)
    addresses = (ctypes.c_void_p * len(maps))(*_addresses(*maps))
    heights, widths = ((ctypes.c_int64 * len(maps))(*(part.shape[axis] for part in maps)) for axis in (1, 2))
    sizes = len(maps), *x.shape
    _add_resized(x.data_ptr(), addresses, heights, widths, *sizes, memory.data_ptr(), row, threads)


_operators.impl("add_resized", _add_resized_on_cpu, "CPU")
_operators.impl("depthwise_gelu", _depthwise_gelu_on_cpu, "CPU")
_operators.impl("gelu", _gelu_on_cpu, "CPU")
_operators.impl("layer_norm", _layer_norm_on_cpu, "CPU")


@torch.library.register_fake("mmseg::depthwise_gelu", lib=_operators)
def _depthwise_gelu_shape(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None, width: int, above: bool, below: bool
) -> Tensor:
    n, _, channels = parts[0].shape
    neighbours = (not above) + (not below)
    return parts[0].new_empty(n, sum(x.shape[1] for x in parts) - neighbours * width, channels)


@torch.library.register_fake("mmseg::gelu", lib=_operators)
def _gelu_shape(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake("mmseg::layer_norm", lib=_operators)
def _layer_norm_shape(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake("mmseg::add_resized", lib=_operators)
def _add_resized_shape(x: Tensor, maps: Sequence[Tensor]) -> None:
    return None
