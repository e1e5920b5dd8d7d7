"""Attention by the kernels of ``attention.cpp``.

As operators of PyTorch, so that fake tensors and dispatch modes see them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg.models.cpu.kernels.library import Kernel, kernels_for

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_memory = {type_: Kernel(f"attend_memory_{name}", "iii", integer=True) for type_, name in _TYPES.items()}
_attend = {type_: Kernel(f"attend_{name}", "ppppppp" + "iiiii" + "fpi") for type_, name in _TYPES.items()}
_attend_windows = {
    type_: Kernel(f"attend_windows_{name}", "pppppppp" + "iiii" + "fpii") for type_, name in _TYPES.items()
}

_operators = torch.library.Library("mmseg", "FRAGMENT")
_operators.define("attend(Tensor q, Tensor k, Tensor v) -> Tensor")
_operators.define(
    "attend_windows(Tensor query, Tensor table, Tensor windows, Tensor rows, Tensor starts, int most, Tensor[] biases,"
    " float scale) -> Tensor"
)


class WindowKeys(NamedTuple):
    """Which rows of a table are the keys of which window, window after window in the order of `windows`."""

    windows: Tensor  # (W,) int64
    rows: Tensor  # int64: keys of the first one, of the second, ...
    starts: Tensor  # (W + 1,) int64: where in `rows` those of a window begin
    most: int  # keys that a window has


def takes(x: Tensor, dim: int) -> bool:
    """Whether the kernels are for `x`, with heads of `dim` numbers: see :func:`kernels_for`; also for bfloat16, if the
    processor has its products."""
    if x.dtype == torch.bfloat16:
        return dim % 2 == 0 and hasattr(kernels_for(x, torch.bfloat16), "attend_bfloat16")
    return kernels_for(x) is not None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``.

    Args:
        q: (n, heads, L, d) float32 or bfloat16, see :func:`takes`.
        k, v: (n, heads, M, d).

    Returns:
        (n, heads, L, d), a view of (n, L, heads, d).
    """
    return torch.ops.mmseg.attend(q, k, v).transpose(1, 2)


def attend_windows(query: Tensor, table: Tensor, keys: WindowKeys, biases: Sequence[Tensor], scale: float) -> Tensor:
    """Attention of windows to rows of a table of keys and values.

    Args:
        query: (W, L, C) float32 or bfloat16, see :func:`takes`.
        table: (R, 2C), keys and values.
        keys: of every window.
        biases: (..., heads, L, M or more) without gaps, of each window in the order of `keys`; many may share one.
        scale: of the products of queries and keys.

    Returns:
        (W, L, C).
    """
    return torch.ops.mmseg.attend_windows(query, table, *keys, biases, scale)


def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, heads, length, dim = q.shape
    keys, threads, memory_of = k.shape[2], torch.get_num_threads(), _memory[q.dtype]
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out = q.new_empty(n, length, heads, dim)
    floats = memory_of(keys, dim, n * heads) + (threads - 1) * memory_of(keys, dim, 0)
    memory = q.new_empty(floats, dtype=torch.float32)
    inputs = [part for x in (q, k, v) for part in (x.data_ptr(), (ctypes.c_int64 * 3)(*x.stride()[:3]))]
    sizes = n, heads, length, keys, dim
    _attend[q.dtype](*inputs, out.data_ptr(), *sizes, dim**-0.5, memory.data_ptr(), threads)
    return out


def _attend_windows_on_cpu(
    query: Tensor,
    table: Tensor,
    windows: Tensor,
    rows: Tensor,
    starts: Tensor,
    most: int,
    biases: Sequence[Tensor],
    scale: float,
) -> Tensor:
    count, length, channels = query.shape
    heads, threads = biases[0].shape[-3], torch.get_num_threads()
    sizes = count, length, heads, channels // heads
    query, table = query.contiguous(), table.contiguous()
    out = torch.empty_like(query)
    of_thread = _memory[query.dtype](most, channels // heads, heads)
    memory = query.new_empty(threads * of_thread, dtype=torch.float32)
    addresses = (ctypes.c_void_p * count)(*(bias.data_ptr() for bias in biases))
    pitches = (ctypes.c_int64 * count)(*(bias.shape[-1] for bias in biases))
    inputs = [*(x.data_ptr() for x in (query, table, windows, rows, starts)), addresses, pitches]
    _attend_windows[query.dtype](*inputs, out.data_ptr(), *sizes, scale, memory.data_ptr(), of_thread, threads)
    return out


_operators.impl("attend", _attend_on_cpu, "CPU")
_operators.impl("attend_windows", _attend_windows_on_cpu, "CPU")


@torch.library.register_fake("mmseg::attend", lib=_operators)
def _attend_shape(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, heads, length, dim = q.shape
    return q.new_empty(n, length, heads, dim)


@torch.library.register_fake("mmseg::attend_windows", lib=_operators)
def _attend_windows_shape(query: Tensor, *_: object) -> Tensor:
    return torch.empty_like(query)
