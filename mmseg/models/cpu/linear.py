"""Matrix products through oneDNN.

PyTorch sends float32 linear layers to MKL, which takes a slow path on processors that are not Intel's; oneDNN, which
is built into PyTorch for convolutions, runs the same products up to twice as fast there and no slower elsewhere. With
gradients that is so for narrow layers, and for the products that give the gradient of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

_NARROW = 256  # channels; in wider layers that learn MKL is as fast
_PACKED_FOR = 512  # rows; what is packed for them serves any number of rows as well
_LEAST_ROWS = 256  # that are worth it

_SAMPLE = 61  # numbers of a weight that are looked at before it is taken from those that are packed

_packed = WeakTensorKeyDictionary()  # parameter -> _Packed


@lru_cache(maxsize=1)
def _has_onednn_linear() -> bool:
    """Whether this build of PyTorch has the operators (those torch.compile emits), and they compute a linear layer."""
    x = torch.arange(6.0).view(2, 3)
    try:
        weights = [x, torch.ops.mkldnn._reorder_linear_weight(x, _PACKED_FOR)]
        results = [torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "") for weight in weights]
        return all(torch.equal(result, x @ x.t()) for result in results)
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False, keeps: bool = False) -> Tensor:
    """``F.linear``: (..., C_in) -> (..., C_out).

    Args:
        relu: with a ReLU behind it.
        keeps: `weight` is used again and again, and may be kept in another order, too.
    """
    if uses_onednn(x):
        # of other strides oneDNN takes its slow reference code
        weight = _packed_weight(weight, x.numel() // x.shape[-1]) if keeps else weight.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    narrow = min(weight.shape) <= _NARROW and x.ndim > 1 and _suits_onednn(x)
    x = _Narrow.apply(x, weight, bias) if narrow else F.linear(x, weight, bias)
    return F.relu(x) if relu else x


@dataclass(frozen=True)
class _Packed:
    """A parameter in oneDNN's order of blocks, and what it was made from.

    Attributes:
        state: version and address of the parameter.
        sample: some of its numbers, a view and a copy: ``.data`` and fused optimisers write without a new version.
    """

    weight: Tensor
    state: tuple[int, int]
    sample: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, weight: nn.Parameter) -> _Packed:
        plain = weight.detach().contiguous()
        view = weight.detach().flatten()[:: weight.numel() // _SAMPLE + 1]
        return cls(torch.ops.mkldnn._reorder_linear_weight(plain, _PACKED_FOR), _state(weight), (view, view.clone()))

    def fits(self, weight: nn.Parameter) -> bool:
        return self.state == _state(weight) and torch.equal(*self.sample)


def _state(weight: nn.Parameter) -> tuple[int, int]:
    return weight._version, weight.data_ptr()


def _packed_weight(weight: Tensor, rows: int) -> Tensor:
    """`weight` as a product with `rows` rows should read it; the result is the same to the last bit.

    oneDNN brings weights into its order at every call. A parameter is kept in it, beside itself, until it changes.
    """
    few = rows < _LEAST_ROWS or weight.numel() < _SAMPLE
    if few or not isinstance(weight, nn.Parameter) or weight.is_inference() or not weight.is_contiguous():
        return weight.contiguous()
    kept = _packed.get(weight)
    if kept is None or not kept.fits(weight):  # streams in other threads may do the same
        kept = _packed[weight] = _Packed.of(weight)
    return kept.weight


class _Narrow(torch.autograd.Function):
    """A linear layer with gradients; that of the weights, whose product is long instead, comes from MKL."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight.detach(), bias)  # which will change: not worth keeping in oneDNN's order

    @staticmethod
    @once_differentiable
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
