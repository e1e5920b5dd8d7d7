"""Attention of windows to keys of their own, with a bias."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def split_heads(query: Tensor, keys: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query (n, heads, L, d), key and value (n, heads, M, d) from (n, L, C) and (n, M, 2C)."""
    key, value = keys.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query.unflatten(-1, (num_heads, -1)).transpose(1, 2), key, value


def window_attention(query: Tensor, keys: Tensor, bias: Tensor, scale: float) -> Tensor:
    """``softmax(scale q k^T + bias) v`` of n windows.

    Args:
        query: (n, L, C).
        keys: keys and values (n, M, 2C).
        bias: (n or 1, heads, L, M).

    Returns:
        (n, L, C), heads concatenated.
    """
    query, key, value = split_heads(query, keys, bias.shape[1])
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), scale=scale)
    return out.transpose(1, 2).flatten(2)
