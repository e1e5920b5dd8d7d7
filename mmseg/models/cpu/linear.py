"""Matrix products through oneDNN.

PyTorch sends float32 linear layers to MKL, which takes a slow path on processors that are not Intel's; oneDNN, which
is built into PyTorch for convolutions, runs the same products up to twice as fast there and no slower elsewhere. Those
of bfloat16 go to oneDNN anyway, but come with copies of the bias.

In training oneDNN gets only products behind which there is no ReLU, see :func:`fast_products` and
:func:`linear_of_samples`, and those that give gradients of inputs. Official numbers come from MKL; where a sum near
zero is rounded to the other side of it, single gradients change by 1 %.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from mmseg.models.cpu.bfloat16 import has_bfloat16

_LEAST = 1 << 20  # multiplications of a product that is worth the function around it
_here = threading.local()


@lru_cache
def _has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has the operator (the one torch.compile emits), and it computes a linear layer."""
    x = torch.arange(6, dtype=dtype, device="cpu").view(2, 3)  # whatever torch.set_default_device says
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], ""), x @ x.t())
    except (AttributeError, RuntimeError):
        return False


def uses_onednn(x: Tensor) -> bool:
    """Whether :func:`linear` takes the fast path for `x`: on CPU, not empty; no graph, autocast, tracing.

    It is there for float32, and for bfloat16 if the processor has instructions for it.
    """
    return not torch.is_grad_enabled() and _suits_onednn(x)


@contextmanager
def fast_products(unseen: Tensor | None = None) -> Iterator[None]:
    """Linear layers of a graph are computed as those without one.

    Args:
        unseen: weight of a layer of whose result nobody looks at the numbers, but for gradients; it may be zeros.
    """
    outside = _here.__dict__.copy()
    _here.fast, _here.unseen = True, unseen
    try:
        yield
    finally:
        _here.__dict__.update({"fast": False, "unseen": None} | outside)


def _suits_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()  # which would look into the questions below
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and has_bfloat16()))
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0  # whose derivatives operators without a formula would drop
        and x.numel() > 0
        and _has_onednn_linear(x.dtype)
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``F.linear``: (..., C_in) -> (..., C_out), with a ReLU behind it if wanted."""
    if uses_onednn(x):
        weight = weight.contiguous()  # of other strides oneDNN takes its slow reference code
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    learns = torch.is_grad_enabled() and x.ndim > 1 and x.numel() * len(weight) >= _LEAST and _suits_onednn(x)
    x = _Linear.apply(x, weight, bias, _way(weight)) if learns else F.linear(x, weight, bias)
    return F.relu(x) if relu else x


def _way(weight: Tensor) -> Literal["exact", "fast", "unseen"]:
    """How the result of a layer that learns is computed here and now."""
    if getattr(_here, "unseen", None) is weight:
        return "unseen"
    return "fast" if getattr(_here, "fast", False) else "exact"


class _Linear(torch.autograd.Function):
    """A linear layer that learns; like any other it can be differentiated twice, and by ``torch.func``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, way: str) -> Tensor:
        if way == "unseen":
            return x.new_zeros(()).expand(*x.shape[:-1], len(weight))
        return linear(x, weight, bias) if way == "fast" else F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, str], output: Tensor) -> None:
        x, weight, *_ = inputs
        of_x, of_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            linear(grad.contiguous(), weight.t()) if of_x else None,
            rows.t() @ x.flatten(0, -2) if of_weight else None,  # by MKL, which takes half of the time for it
            rows.sum(0) if of_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None, _: None) -> Tensor:
        """The change of the result by those of the inputs, in forward-mode differentiation."""
        x, weight = ctx.saved_tensors
        parts = [] if of_x is None else [F.linear(of_x, weight)]
        parts += [] if of_weight is None else [F.linear(x, of_weight)]
        parts += [] if of_bias is None else [of_bias.expand(*x.shape[:-1], -1)]
        return sum(parts[1:], parts[0])


def linear_of_samples(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer with weights of their own for every sample: (n, L, C_in), (n, C_out, C_in) -> (n, L, C_out).

    On a CPU no ReLU should follow, see above.
    """
    return _LinearOfSamples.apply(x, weight, bias) if _suits_onednn(x) else x @ weight.transpose(1, 2) + bias


class _LinearOfSamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = x.new_empty(*x.shape[:2], weight.shape[1])
        for sample, *inputs in zip(out, x, weight):
            sample.copy_(linear(*inputs, bias))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.transpose(1, 2) @ x, grad.sum((0, 1))


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Dot products of all rows (n, L, C) with all of `columns` (n, M, C), (n, L, M)."""
    if not uses_onednn(rows):
        return rows @ columns.transpose(1, 2)
    found = [linear(x.contiguous(), weight) for x, weight in zip(rows, columns)]
    return found[0][None] if len(found) == 1 else torch.stack(found)


def products_by_column(rows: Tensor, columns: Tensor) -> Tensor:
    """:func:`products`; on a CPU stored column by column, for what sums over the rows next."""
    return products(columns, rows).transpose(1, 2) if uses_onednn(rows) else products(rows, columns)
