"""The core of attention, ``softmax(q k^T / sqrt(d)) v``.

By a kernel where there is one. PyTorch's own takes 1.2 times as long in float32. In bfloat16 its products are no faster
than in float32, and slices of the logits that stay in the cache take two thirds of its time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.kernels import attention as kernels
from mmseg.models.cpu.linear import linear, uses_onednn

_LOGITS = 1 << 20  # bytes that exist at once
_VECTOR, _FEW = 32, 4  # numbers of bfloat16 in a vector of AVX-512; so few more are no trouble


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without mask, scaled by ``d ** -0.5``.

    Args:
        q: (n, heads, L, d).
        k, v: (n, heads, M, d).

    Returns:
        (n, heads, L, d).
    """
    if kernels.takes(q, q.shape[-1]) and _fit(q, k, v):
        return kernels.attend(q, k, v)
    if uses_onednn(q) and q.dtype == torch.bfloat16:
        return _attend_in_slices(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _fit(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether they have the shapes and types that kernels rely on; anything else is for operators that look at them."""
    shape = (*q.shape[:2], k.shape[-2], q.shape[-1])
    kinds = {(x.dtype, x.device) for x in (q, k, v)}
    return k.shape == v.shape == shape and len(kinds) == 1 and k.numel() > 0


def _attend_in_slices(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, heads, length, dim = q.shape
    out = q.new_empty(n, length, heads, dim)
    fill = filling(k.shape[2], k.dtype)
    rows, offset = max(1, _LOGITS // ((k.shape[2] + fill) * k.element_size())), _offset(k, fill)
    k = k * dim**-0.5
    for i in range(n):
        for j in range(heads):
            keys = F.pad(k[i, j], (0, 0, 0, fill)).contiguous()  # (M, d)
            values = F.pad(v[i, j].t(), (0, fill)).contiguous()  # (d, M)
            for queries, result in zip(q[i, j].split(rows), out[i, :, j].split(rows)):
                result.copy_(linear(linear(queries.contiguous(), keys, offset).softmax(dim=-1), values))
    return out.transpose(1, 2)


def filling(length: int, dtype: torch.dtype) -> int:
    """How many numbers to add to rows of `length`, whose softmax is then faster.

    In bfloat16 PyTorch takes those that remain after whole vectors one by one.
    """
    rest = length % _VECTOR
    return _VECTOR - rest if dtype == torch.bfloat16 and rest > _FEW else 0


def _offset(k: Tensor, fill: int) -> Tensor | None:
    """What is added to the logits of keys (..., M, d) and of `fill` further ones, to which nothing attends."""
    if not fill:
        return None
    return F.pad(k.new_zeros(k.shape[2]), (0, fill), value=float("-inf"))
