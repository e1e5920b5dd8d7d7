"""Attention of focal windows over gathered keys (paper, section 3.2; the keys: :mod:`.focal_geometry`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg.models.cpu import focal as cpu_focal
from mmseg.models.decode_heads.cffm.focal_geometry import FocalGeometry
from mmseg.models.layers.attention import window_attention

_KEPT = 8  # map sizes that a bias is kept ready for
_ALIGNMENT = 8  # numbers that a row of a mask is filled up to, or fused attention would copy it at every call


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of every sample's table: (B, R, C) and indices (...) -> (B, ..., C).

    An embedding lookup, because its backward pass adds up rows many times faster than that of indexing.
    """
    first = torch.arange(table.shape[0], device=rows.device) * table.shape[1]
    rows = rows + first.view(-1, *[1] * rows.ndim)  # (B, ...)
    return F.embedding(rows, table.flatten(0, 1))


class FocalBias:
    """The assembled bias (heads, 49, 289) of one block, and the attention that uses it.

    What it becomes for a map size is made once, as long as no graph goes through it.
    """

    def __init__(self, bias: Tensor, scale: float) -> None:
        self.bias, self.scale = bias, scale
        self._ready: dict[Any, Any] = {}

    def attend(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """Attention output for every token of the target, heads concatenated.

        Args:
            query: (B, W, 49, C).
            table: (B, rows, 2C), keys and values of all rows that the geometry's tables name.

        Returns:
            (B, N, C).
        """
        if cpu_focal.takes_groups(table):
            parts = self._kept(geometry.size, lambda: cpu_focal.split_bias(self.bias, geometry.size))
            windows = cpu_focal.grouped_attention(query, table, self.bias, self.scale, geometry.size, parts)
        else:
            windows = self.attend_masked(query, table, geometry)
        return gather_rows(windows.flatten(1, 2), geometry.tokens)

    def attend_masked(self, query: Tensor, table: Tensor, geometry: FocalGeometry) -> Tensor:
        """All windows at once; keys that do not exist get minus infinity: (B, W, 49, C)."""
        keys = gather_rows(table, geometry.keys)  # (B, W, 289, 2C)
        bias = self._masked_bias(geometry, query.dtype)
        return torch.stack([window_attention(q, k, bias, self.scale) for q, k in zip(query, keys)])

    def _masked_bias(self, geometry: FocalGeometry, dtype: torch.dtype) -> Tensor:
        """(W, heads, 49, 289), minus infinity where there is no key; 65 MB for a frame of 480x864 in float32."""

        def make() -> Tensor:
            keys = self.bias.shape[-1]
            fill = (0, -keys % _ALIGNMENT)
            bias, outside = F.pad(self.bias.to(dtype), fill), F.pad(geometry.outside, fill)
            return bias.masked_fill(outside[:, None, None], float("-inf"))[..., :keys]

        return self._kept((geometry.size, dtype), make)

    def _kept(self, key: Any, make: Callable[[], Any]) -> Any:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        ready = self._ready.get(key)
        if ready is None:  # streams in other threads may come by at any point
            ready = self._ready[key] = make()
            for oldest in list(self._ready)[:-_KEPT]:
                self._ready.pop(oldest, None)
        return ready
