"""Attention of focal windows over gathered keys, with masks (any device, with gradients) or without (CPU)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg.models.layers.focal_geometry import TOKENS, FocalGeometry

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
        if torch.is_grad_enabled() or table.device.type != "cpu":
            windows = self._masked(query, table, geometry)
        else:
            windows = self._grouped(query, table, geometry)
        return gather_rows(windows.flatten(1, 2), geometry.tokens)

    def _masked(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """All windows at once; keys that do not exist get minus infinity: (B, W, 49, C)."""
        batch, windows = query.shape[:2]
        keys = gather_rows(table, geometry.keys).flatten(0, 1)  # (B * W, 289, 2C)
        outside = geometry.outside[:, None, None]  # (W, 1, 1, 289)
        bias = self.bias.to(query.dtype).masked_fill(outside, float("-inf"))  # (W, heads, 49, 289)
        if batch > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        return self._attention(query.flatten(0, 1), keys, bias).unflatten(0, (batch, windows))

    def _grouped(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """Windows with the same keys together, a few at a time, without the keys that do not exist."""
        out = torch.empty_like(query)
        biases = self._group_biases(geometry)
        for sample in range(len(query)):
            for group, bias in zip(geometry.groups, biases):
                for windows, rows in zip(group.windows.split(_CHUNK), group.keys.split(_CHUNK)):
                    keys = F.embedding(rows, table[sample])
                    out[sample, windows] = self._attention(query[sample, windows], keys, bias)
        return out

    def _group_biases(self, geometry: FocalGeometry) -> list[Tensor]:
        """The bias of the keys that exist in each group, kept per map size."""
        if geometry.size not in self._parts:
            self._parts[geometry.size] = [self.bias[..., group.columns][None] for group in geometry.groups]
        return self._parts[geometry.size]

    def _attention(self, query: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """query (n, 49, C), keys and values (n, L, 2C), bias (n or 1, heads, 49, L) -> (n, 49, C)."""
        query = query.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = keys.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (n, heads, L, 32)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        return out.transpose(1, 2).reshape(len(out), TOKENS, -1)
