"""Matrix products through oneDNN for inference.

PyTorch sends float32 linear layers to MKL, which takes a slow path on processors that are not Intel's; oneDNN, which
is built into PyTorch for convolutions, runs the same products about twice as fast there and no slower elsewhere. Those
of bfloat16 go to oneDNN anyway, but come with copies of the bias. It has no backward, so graphs are built with the
ordinary functions.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.bfloat16 import has_bfloat16


@lru_cache
def _has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has the operator (the one torch.compile emits), and it computes a linear layer."""
    x = torch.arange(6, dtype=dtype).view(2, 3)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], ""), x @ x.t())
    except (AttributeError, RuntimeError):
        return False


def uses_onednn(x: Tensor) -> bool:
    """Whether :func:`linear` takes the fast path for `x`: on CPU, not empty; no graph, autocast, tracing.

    It is there for float32, and for bfloat16 if the processor has instructions for it.
    """
    return (
        x.device.type == "cpu"
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and has_bfloat16()))
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
        and _has_onednn_linear(x.dtype)
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``F.linear``: (..., C_in) -> (..., C_out), with a ReLU behind it if wanted."""
    if uses_onednn(x):
        weight = weight.contiguous()  # of other strides oneDNN takes its slow reference code
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    x = F.linear(x, weight, bias)
    return F.relu(x) if relu else x


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Dot products of all rows (n, L, C) with all of `columns` (n, M, C), (n, L, M)."""
    if not uses_onednn(rows):
        return rows @ columns.transpose(1, 2)
    found = [linear(x.contiguous(), weight) for x, weight in zip(rows, columns)]
    return found[0][None] if len(found) == 1 else torch.stack(found)


def products_by_column(rows: Tensor, columns: Tensor) -> Tensor:
    """:func:`products`; on a CPU stored column by column, for what sums over the rows next."""
    return products(columns, rows).transpose(1, 2) if uses_onednn(rows) else products(rows, columns)
