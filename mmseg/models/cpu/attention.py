"""The core of attention, ``softmax(q k^T / sqrt(d)) v``: in slices of the logits that stay in the cache."""

from __future__ import annotations

from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.linear import linear, uses_onednn

_LOGITS = 1 << 18  # that exist at once


def attend(q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Attention scaled by ``d ** -0.5``.

    Args:
        q: (n, heads, L, d).
        k, v: (n, heads, M, d).
        blocked: (n, L, M) bool, True where a query must not look, whatever the head.
        dropout: of the weights.

    Returns:
        (n, heads, L, d), whose transpose (n, L, heads, d) is contiguous.
    """
    if uses_onednn(q) and dropout == 0.0:
        return _attend_in_slices(q, k, v, blocked)
    allowed = None if blocked is None else ~blocked[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)


def _attend_in_slices(q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None) -> Tensor:
    n, heads, length, dim = q.shape
    out = q.new_empty(n, length, heads, dim)
    rows = max(1, _LOGITS // k.shape[2])
    k = k * dim**-0.5
    for i in range(n):
        # added to the logits of every head, which is vectorised, unlike filling them in where a mask says so
        bias = None if blocked is None else q.new_zeros(blocked.shape[1:]).masked_fill_(blocked[i], -torch.inf)
        for j in range(heads):
            keys, values = k[i, j].contiguous(), v[i, j].t().contiguous()  # (M, d), (d, M)
            biases = repeat(None) if bias is None else bias.split(rows)
            for queries, result, part in zip(q[i, j].split(rows), out[i, :, j].split(rows), biases):
                logits = linear(queries.contiguous(), keys)
                if part is not None:
                    logits += part
                result.copy_(linear(logits.softmax(dim=-1), values))
    return out.transpose(1, 2)
