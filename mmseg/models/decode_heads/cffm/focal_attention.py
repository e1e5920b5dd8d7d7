"""Attention of focal windows over gathered keys: all windows at once with masks, or a few at a time without (CPU).

On a CPU the windows are sorted by which keys exist for them, and a few of a kind are gathered and attended to while
they are in the cache. For gradients the same is done once more in the backward pass, so that neither gathered keys
nor attention matrices are kept in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmseg.models.decode_heads.cffm.focal_geometry import TOKENS, FocalGeometry

_CHUNK = 4  # windows whose keys are gathered at a time, so that they stay in the processor's cache


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of every sample's table: (B, R, C) and indices (...) -> (B, ..., C).

    An embedding lookup, because its backward pass adds up rows many times faster than that of indexing.
    """
    first = torch.arange(len(table), device=rows.device) * table.shape[1]
    rows = rows + first.view(-1, *[1] * rows.ndim)  # (B, ...)
    return F.embedding(rows, table.flatten(0, 1))


class FocalBias:
    """The assembled bias (heads, 49, 289) of one block and the attention that uses it."""

    def __init__(self, bias: Tensor, num_heads: int, scale: float) -> None:
        self.bias, self.num_heads, self.scale = bias, num_heads, scale
        self._parts: dict[tuple[int, int], list[Tensor]] = {}

    def attend(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """Attention output for every token of the target, heads concatenated.

        Args:
            query: (B, W, 49, C).
            table: (B, rows, 2C), keys and values of all rows that the geometry's tables name.

        Returns:
            (B, N, C).
        """
        if table.device.type != "cpu" or torch.compiler.is_compiling():
            windows = self._masked(query, table, geometry)
        elif torch.is_grad_enabled():
            windows = _GroupedAttention.apply(query, table, self.bias, self.scale, geometry)
        else:
            windows = _grouped(query, table, self._group_biases(geometry), self.scale, geometry)
        return gather_rows(windows.flatten(1, 2), geometry.tokens)

    def _masked(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """All windows at once; keys that do not exist get minus infinity: (B, W, 49, C)."""
        batch, windows = query.shape[:2]
        keys = gather_rows(table, geometry.keys).flatten(0, 1)  # (B * W, 289, 2C)
        outside = geometry.outside[:, None, None]  # (W, 1, 1, 289)
        bias = self.bias.to(query.dtype).masked_fill(outside, float("-inf"))  # (W, heads, 49, 289)
        if batch > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        return _attention(query.flatten(0, 1), keys, bias, self.scale).unflatten(0, (batch, windows))

    def _group_biases(self, geometry: FocalGeometry) -> list[Tensor]:
        """The bias of the keys that exist in each group, kept per map size."""
        if geometry.size not in self._parts:
            self._parts[geometry.size] = _split_bias(self.bias, geometry)
        return self._parts[geometry.size]


def _split_bias(bias: Tensor, geometry: FocalGeometry) -> list[Tensor]:
    """The bias (heads, 49, 289) as (1, heads, 49, L) for the keys that exist in each group."""
    return [bias.index_select(-1, group.columns)[None] for group in geometry.groups]


def _chunks(samples: int, geometry: FocalGeometry) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Sample, group, windows (n,) and rows of their keys (n, L), a few windows of one group at a time."""
    for sample in range(samples):
        for number, group in enumerate(geometry.groups):
            for windows, rows in zip(group.windows.split(_CHUNK), group.keys.split(_CHUNK)):
                yield sample, number, windows, rows


def _grouped(query: Tensor, table: Tensor, biases: list[Tensor], scale: float, geometry: FocalGeometry) -> Tensor:
    """Attention (B, W, 49, C) without the keys that do not exist."""
    out = torch.empty_like(query)
    for sample, number, windows, rows in _chunks(len(query), geometry):
        keys = F.embedding(rows, table[sample])
        out[sample, windows] = _attention(query[sample, windows], keys, biases[number], scale)
    return out


def _attention(query: Tensor, keys: Tensor, bias: Tensor, scale: float) -> Tensor:
    """query (n, 49, C), keys and values (n, L, 2C), bias (n or 1, heads, 49, L) -> (n, 49, C)."""
    query, key, value = _heads(query, keys, bias.shape[1])
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), scale=scale)
    return out.transpose(1, 2).reshape(len(out), TOKENS, -1)


def _heads(query: Tensor, keys: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query (n, heads, 49, d), key and value (n, heads, L, d) from (n, 49, C) and (n, L, 2C)."""
    key, value = keys.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query.unflatten(-1, (num_heads, -1)).transpose(1, 2), key, value


class _GroupedAttention(torch.autograd.Function):
    """:func:`_grouped` with gradients, for which the attention of every few windows is computed again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, bias: Tensor, scale: float, geometry: FocalGeometry) -> Tensor:
        ctx.save_for_backward(query, table, bias)
        ctx.scale, ctx.geometry = scale, geometry
        return _grouped(query, table, _split_bias(bias, geometry), scale, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        query, table, bias = ctx.saved_tensors
        biases = _split_bias(bias.float(), ctx.geometry)
        grad_biases = [torch.zeros_like(part[0]) for part in biases]
        grad_query, grad_table = torch.empty_like(query), torch.zeros_like(table, dtype=torch.float32)
        for sample, number, windows, rows in _chunks(len(query), ctx.geometry):
            keys = F.embedding(rows, table[sample])
            parts = query[sample, windows].float(), keys.float(), grad[sample, windows].float()
            grads = _attention_backward(*parts, biases[number], ctx.scale)
            grad_query[sample, windows] = grads[0].to(query.dtype)
            grad_table[sample].index_add_(0, rows.flatten(), grads[1].flatten(0, 1))
            grad_biases[number] += grads[2]
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        for group, part in zip(ctx.geometry.groups, grad_biases):
            grad_bias.index_add_(-1, group.columns, part)
        return grad_query, grad_table.to(table.dtype), grad_bias.to(bias.dtype), None, None


def _attention_backward(
    query: Tensor, keys: Tensor, grad: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`_attention` with respect to query, keys and values, and bias (heads, 49, L)."""
    query, key, value = (part.contiguous() for part in _heads(query, keys, bias.shape[1]))
    grad = grad.unflatten(-1, (bias.shape[1], -1)).transpose(1, 2).contiguous()  # (n, heads, 49, d)
    attention = (query @ key.transpose(-2, -1)).mul_(scale).add_(bias).softmax(-1)  # (n, heads, 49, L)
    grad_value = attention.transpose(-2, -1) @ grad
    grad_attention = grad @ value.transpose(-2, -1)
    grad_logits = torch.ops.aten._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
    grad_query = (grad_logits @ key).mul_(scale)
    grad_key = (grad_logits.transpose(-2, -1) @ query).mul_(scale)
    grad_keys = torch.stack([grad_key, grad_value], 2).permute(0, 3, 2, 1, 4).flatten(2)  # (n, L, 2C)
    return grad_query.transpose(1, 2).flatten(2), grad_keys, grad_logits.sum(0)
