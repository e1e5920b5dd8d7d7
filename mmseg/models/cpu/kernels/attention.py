"""Attention by the kernels of ``attention.cpp``.

As operators of PyTorch, so that fake tensors, dispatch modes and ``vmap`` see them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg.models.cpu.kernels.library import Kernel

_memory_of_thread = Kernel("attend_memory_of_thread", "iii", integer=True)
_memory_of_head = Kernel("attend_memory_of_head", "ii", integer=True)
_attend = Kernel("attend", "ppppppp" + "iiiii" + "fpi")
_attend_windows = Kernel("attend_windows", "ppppppp" + "iiii" + "fpii")

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


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``.

    Args:
        q: (n, heads, L, d) float32.
        k, v: (n, heads, M, d) float32.

    Returns:
        (n, heads, L, d), a view of (n, L, heads, d).
    """
    return torch.ops.mmseg.attend(q, k, v).transpose(1, 2)


def attend_windows(query: Tensor, table: Tensor, keys: WindowKeys, biases: Sequence[Tensor], scale: float) -> Tensor:
    """Attention of windows to rows of a table of keys and values.

    Args:
        query: (W, L, C) float32.
        table: (R, 2C) float32, keys and values.
        keys: of every window.
        biases: (..., heads, L, M) float32 without gaps, of each window in the order of `keys`; many may share one.
        scale: of the products of queries and keys.

    Returns:
        (W, L, C).
    """
    return torch.ops.mmseg.attend_windows(query, table, *keys, biases, scale)


def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, heads, length, dim = q.shape
    keys, threads = k.shape[2], torch.get_num_threads()
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out = q.new_empty(n, length, heads, dim)
    memory = q.new_empty(n * heads * _memory_of_head(keys, dim) + threads * _memory_of_thread(keys, dim, 0))
    inputs = [part for x in (q, k, v) for part in (x.data_ptr(), (ctypes.c_int64 * 3)(*x.stride()[:3]))]
    _attend(*inputs, out.data_ptr(), n, heads, length, keys, dim, dim**-0.5, memory.data_ptr(), threads)
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
    query, table = query.contiguous(), table.contiguous()
    out = torch.empty_like(query)
    of_thread = _memory_of_thread(most, channels // heads, heads)
    memory = query.new_empty(threads * of_thread)
    addresses = (ctypes.c_void_p * count)(*(bias.data_ptr() for bias in biases))
    tensors = [x.data_ptr() for x in (query, table, windows, rows, starts)]
    sizes = count, length, heads, channels // heads
    _attend_windows(*tensors, addresses, out.data_ptr(), *sizes, scale, memory.data_ptr(), of_thread, threads)
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
