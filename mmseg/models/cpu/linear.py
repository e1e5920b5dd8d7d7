"""Matrix products through oneDNN.

PyTorch sends float32 linear layers to MKL, which takes a slow path on processors that are not Intel's; oneDNN, which
is built into PyTorch for convolutions, runs the same products up to twice as fast there and no slower elsewhere. With
gradients that is so for narrow layers, and for the products that give the gradient of the input.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NARROW = 256  # channels; in wider layers that learn MKL is as fast


@lru_cache(maxsize=1)
def _has_onednn_linear() -> bool:
    """Whether this build of PyTorch has the operator (the one torch.compile emits), and it computes a linear layer."""
    x = torch.arange(6.0).view(2, 3)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], ""), x @ x.t())
    except (AttributeError, RuntimeError):
        return False


def uses_onednn(x: Tensor) -> bool:
    """Whether :func:`linear` takes the fast path for `x`: float32 on CPU, not empty; no graph, autocast, tracing."""
    return not torch.is_grad_enabled() and _suits_onednn(x)


def _suits_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
        and _has_onednn_linear()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``F.linear``, with a ReLU behind it if wanted: (..., C_in) -> (..., C_out)."""
    if uses_onednn(x):
        weight = weight.contiguous()  # of other strides oneDNN takes its slow reference code
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    narrow = min(weight.shape) <= _NARROW and x.ndim > 1 and _suits_onednn(x)
    x = _Narrow.apply(x, weight, bias) if narrow else F.linear(x, weight, bias)
    return F.relu(x) if relu else x


class _Narrow(torch.autograd.Function):
    """A linear layer with gradients; that of the weights, whose product is long instead, comes from MKL.

    Like any other it can be differentiated twice, and by ``torch.func``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            linear(grad.contiguous(), weight.t()) if of_x else None,
            rows.t() @ x.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Dot products of all rows (n, L, C) with all of `columns` (n, M, C), (n, L, M)."""
    if not uses_onednn(rows):
        return rows @ columns.transpose(1, 2)
    found = [linear(x.contiguous(), weight) for x, weight in zip(rows, columns)]
    return found[0][None] if len(found) == 1 else torch.stack(found)


def products_by_column(rows: Tensor, columns: Tensor) -> Tensor:
    """:func:`products`; on a CPU stored column by column, for what sums over the rows next."""
    return products(columns, rows).transpose(1, 2) if uses_onednn(rows) else products(rows, columns)
