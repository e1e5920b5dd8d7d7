"""Focal attention without masks: windows sorted by which keys exist for them, one or a few of a kind at a time.

The keys of a window are gathered and attended to while they are in the cache. For gradients the same is done once
more in the backward pass, so that neither gathered keys nor attention matrices are kept in between.

PyTorch's fused kernel is as slow in bfloat16 as in float32, so there the products are those of all heads by oneDNN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmseg.models.cpu.attention import filling
from mmseg.models.cpu.kernels import attention as kernels
from mmseg.models.cpu.kernels.library import without_kernels
from mmseg.models.cpu.linear import uses_onednn
from mmseg.models.decode_heads.cffm.focal_geometry import focal_geometry
from mmseg.models.layers.attention import split_heads, window_attention
from mmseg.models.layers.size_tables import table

_WINDOWS = 4  # whose keys are gathered at a time for gradients


@dataclass(frozen=True)
class WindowGroup:
    """Windows for which the same ones of the 289 keys exist.

    Attributes:
        windows: (n,) the windows.
        columns: (L,) the keys that exist for them.
        keys: (n, L) rows of these keys in the table.
    """

    windows: Tensor
    columns: Tensor
    keys: Tensor


@table
def window_groups(h: int, w: int) -> tuple[WindowGroup, ...]:
    """The windows of a map of `h` x `w` tokens by the keys that exist for them; about 49 groups for a large map."""
    geometry = focal_geometry(h, w, torch.device("cpu"))
    patterns, membership = torch.unique(geometry.outside, dim=0, return_inverse=True)
    groups = []
    for number, missing in enumerate(patterns):
        windows, columns = (membership == number).nonzero().flatten(), (~missing).nonzero().flatten()
        groups.append(WindowGroup(windows, columns, geometry.keys[windows][:, columns].contiguous()))
    return tuple(groups)


def takes_groups(x: Tensor) -> bool:
    """Whether :func:`grouped_attention` is the way to go for `x`."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def grouped_attention(
    query: Tensor, table: Tensor, bias: Tensor, scale: float, size: tuple[int, int], parts: list[Tensor] | None = None
) -> Tensor:
    """Attention of all windows to the keys that exist for them.

    Args:
        query: (B, W, 49, C).
        table: (B, rows, 2C), keys and values of all rows that the geometry's tables name.
        bias: (heads, 49, 289).
        size: (h, w) of the map.
        parts: :func:`split_bias` of `bias`, if it is at hand.

    Returns:
        (B, W, 49, C).
    """
    if torch.is_grad_enabled():
        return _GroupedAttention.apply(query, table, bias, scale, size)
    return _attend(query, table, parts or split_bias(bias, size), scale, size)


def split_bias(bias: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """The bias (heads, 49, 289) as (1, heads, 49, L) for the keys that exist in each group.

    In bfloat16 there may be some more columns, of minus infinity.
    """
    parts = _of_groups(bias, window_groups(*size))
    if not uses_onednn(bias):
        return parts
    return [F.pad(part, (0, filling(part.shape[-1], bias.dtype)), value=float("-inf")) for part in parts]


def _chunks(samples: int, groups: Sequence[WindowGroup]) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Sample, group, windows (n,) and rows of their keys (n, L), a few windows of one group at a time."""
    for sample in range(samples):
        for number, group in enumerate(groups):
            for windows, rows in zip(group.windows.split(_WINDOWS), group.keys.split(_WINDOWS)):
                yield sample, number, windows, rows


def _attend(query: Tensor, table: Tensor, biases: Sequence[Tensor], scale: float, size: tuple[int, int]) -> Tensor:
    groups = window_groups(*size)
    alike = query.dtype == table.dtype == biases[0].dtype
    if alike and kernels.takes(query, query.shape[-1] // biases[0].shape[1]):  # all windows of a sample at once
        of_windows = [bias.contiguous() for bias, group in zip(biases, groups) for _ in group.windows]
        inputs = _window_keys(*size), of_windows, scale
        return torch.stack([kernels.attend_windows(*sample, *inputs) for sample in zip(query, table)])
    if query.dtype == torch.bfloat16 and uses_onednn(query):
        return _attend_by_products(query, table, biases, scale, groups)
    out = torch.empty_like(query)
    for queries, rows_of_sample, results in zip(
        query.unsqueeze(2), table, out
    ):  # (W, 1, 49, C), (rows, 2C), as queries
        for group, bias in zip(groups, biases):
            bias = bias[..., : group.keys.shape[1]]
            for window, rows in zip(group.windows.tolist(), group.keys.split(1)):
                keys = F.embedding(rows, rows_of_sample)  # (1, L, 2C): half a megabyte for 256 channels
                results[window] = window_attention(queries[window], keys, bias, scale)[0]
    return out


@table
def _window_keys(h: int, w: int) -> kernels.WindowKeys:
    groups = window_groups(h, w)
    lengths = torch.cat([torch.full_like(group.windows, group.keys.shape[1]) for group in groups])
    rows, starts = torch.cat([group.keys.flatten() for group in groups]), F.pad(lengths.cumsum(0), (1, 0))
    return kernels.WindowKeys(torch.cat([group.windows for group in groups]), rows, starts, int(lengths.max()))


def _attend_by_products(
    query: Tensor, table: Tensor, biases: Sequence[Tensor], scale: float, groups: Sequence[WindowGroup]
) -> Tensor:
    """:func:`_attend` by products of all heads of a window, whose operands lie as oneDNN takes them without copies."""
    out, heads = torch.empty_like(query), biases[0].shape[1]
    queries = query.unflatten(-1, (heads, -1)).transpose(2, 3).contiguous()  # (B, W, heads, 49, d)
    results = out.unflatten(-1, (heads, -1)).transpose(2, 3)
    for sample, rows_of_sample in enumerate(table):  # (rows, 2C)
        for group, bias in zip(groups, biases):
            for window, rows in zip(group.windows.tolist(), _filled(group.keys, bias.shape[-1])):
                key, value = rows_of_sample.index_select(0, rows).unflatten(-1, (2, heads, -1)).permute(1, 2, 0, 3)
                key = key.contiguous().transpose(1, 2)  # (heads, d, L)
                logits = torch.baddbmm(bias[0], queries[sample, window], key, alpha=scale)  # (heads, 49, L)
                torch.bmm(logits.softmax(-1), value, out=results[sample, window])
    return out


def _filled(rows: Tensor, length: int) -> Tensor:
    """Rows of keys (n, L) as (n, length), with the first key again where the bias is minus infinity."""
    missing = length - rows.shape[1]
    return torch.cat([rows, rows[:, :1].expand(-1, missing)], dim=1) if missing else rows


class _GroupedAttention(torch.autograd.Function):
    """:func:`_attend` with gradients, for which the attention of every few windows is computed again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, bias: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(query, table, bias)
        ctx.scale, ctx.groups = scale, window_groups(*size)
        with without_kernels():
            return _attend(query, table, _of_groups(bias, ctx.groups), scale, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        query, table, bias = ctx.saved_tensors
        exact = torch.promote_types(query.dtype, torch.float32)
        biases = _of_groups(bias.to(exact), ctx.groups)
        grad_biases = [torch.zeros_like(part[0]) for part in biases]
        grad_query, grad_table = torch.empty_like(query), torch.zeros_like(table, dtype=exact)
        for sample, number, windows, rows in _chunks(len(query), ctx.groups):
            keys = F.embedding(rows, table[sample])
            parts = query[sample, windows].to(exact), keys.to(exact), grad[sample, windows].to(exact)
            grads = _attention_backward(*parts, biases[number], ctx.scale)
            grad_query[sample, windows] = grads[0].to(query.dtype)
            grad_table[sample].index_add_(0, rows.flatten(), grads[1].flatten(0, 1))
            grad_biases[number] += grads[2]
        grad_bias = torch.zeros_like(bias, dtype=exact)
        for group, part in zip(ctx.groups, grad_biases):
            grad_bias.index_add_(-1, group.columns, part)
        return grad_query, grad_table.to(table.dtype), grad_bias.to(bias.dtype), None, None


def _of_groups(bias: Tensor, groups: Sequence[WindowGroup]) -> list[Tensor]:
    return [bias.index_select(-1, group.columns)[None] for group in groups]


def _attention_backward(
    query: Tensor, keys: Tensor, grad: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`window_attention` with respect to query, keys and values, and bias (heads, 49, L)."""
    query, key, value = (part.contiguous() for part in split_heads(query, keys, bias.shape[1]))
    grad = grad.unflatten(-1, (bias.shape[1], -1)).transpose(1, 2).contiguous()  # (n, heads, 49, d)
    attention = (query @ key.transpose(-2, -1)).mul_(scale).add_(bias).softmax(-1)  # (n, heads, 49, L)
    grad_value = attention.transpose(-2, -1) @ grad
    grad_attention = grad @ value.transpose(-2, -1)
    grad_logits = torch.ops.aten._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
    grad_query = (grad_logits @ key).mul_(scale)
    grad_key = (grad_logits.transpose(-2, -1) @ query).mul_(scale)
    grad_keys = torch.stack([grad_key, grad_value], 2).permute(0, 3, 2, 1, 4).flatten(2)  # (n, L, 2C)
    return grad_query.transpose(1, 2).flatten(2), grad_keys, grad_logits.sum(0)
