"""Residual branches a few samples at a time, in the backward pass as well, where they are computed again.

Of a branch nothing but its input is kept. What lies inside it exists for a few samples only: it stays near the cache,
and the C library gives out the same memory again instead of asking the system for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmseg.models.cpu.kernels.library import without_kernels
from mmseg.models.cpu.linear import fast_products

_NUMBERS = 1 << 22  # of the largest tensor inside a branch
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Branch = Callable[[Tensor], Tensor]


def learns_by_samples(x: Tensor) -> bool:
    """Whether :func:`add_by_samples` is the way to go for `x`."""
    return torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling()


def is_plain(module: nn.Module, kinds: Collection[type[nn.Module]]) -> bool:
    """Whether a module does what its class says and nobody looks on, so that it may be computed in any way.

    - It is made of `kinds` alone, whose methods are their own: others may draw numbers, which would be different ones
      in the backward pass.
    - No hooks look into it or at gradients of its weights: they would be called for a few samples, without a graph.
    - Its weights are its own: those lent by ``torch.func.functional_call`` are gone in the backward pass.
    """
    return has_plain_layers(module, kinds) and all(
        type(weight) is nn.Parameter and not weight._backward_hooks for weight in module.parameters()
    )


def has_plain_layers(module: nn.Module, kinds: Collection[type[nn.Module]]) -> bool:
    """Whether a module is made of `kinds` alone, whose methods are their own, and no hooks look into it."""
    return all(
        type(part) in kinds and "forward" not in vars(part) and not any(getattr(part, hooks) for hooks in _HOOKS)
        for part in module.modules()
    )


def add_by_samples(
    x: Tensor,
    branch: Branch,
    weights: Sequence[Tensor],
    width: int,
    factors: Tensor | None,
    last: Tensor | None = None,
) -> Tensor:
    """``x + factors * branch(x)``.

    Args:
        x: (n, L, C).
        branch: treats each sample by itself, and gives the same whenever it is called; without a graph it may take
            another way. Where the factor is 0 it is not called.
        weights: all parameters in it. None of them may be written to before the backward pass, as autograd will say.
        width: channels of the widest tensor inside it, (n, L, width).
        factors: of the samples, as many as `x` has; None: 1.
        last: weight of the linear layer that `branch` ends with, if it does.
    """
    at_once = max(1, _NUMBERS // max(1, x.shape[1] * width))
    return _BySamples.apply(branch, last, factors, at_once, x, *weights)


class _BySamples(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        branch: Branch,
        last: Tensor | None,
        factors: Tensor | None,
        at_once: int,
        x: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        ctx.branch, ctx.last, ctx.parts, ctx.autocast = branch, last, _parts(x, factors, at_once), _present_autocast()
        ctx.save_for_backward(x, *weights)
        out = x.clone()
        with without_kernels(), torch.autocast(**ctx.autocast):
            for part, factor in ctx.parts:
                out[part].add_(branch(x[part]), alpha=factor)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, *weights = ctx.saved_tensors
        of_x, *needed = ctx.needs_input_grad[4:]
        learned = [weight for weight, need in zip(weights, needed) if need]
        total, of_weights = grad.clone() if of_x else None, [torch.zeros_like(weight) for weight in learned]
        for part, factor in ctx.parts:
            # as before, but for the last product, which no gradient looks at
            with torch.enable_grad(), torch.autocast(**ctx.autocast), fast_products(ctx.last):
                inside = x[part].detach().requires_grad_(total is not None)
                y = ctx.branch(inside)
            inputs = learned if total is None else [inside, *learned]
            found = list(torch.autograd.grad(y, inputs, (grad[part] * factor).to(y.dtype), materialize_grads=True))
            if total is not None:
                total[part] += found.pop(0)
            for sum_, value in zip(of_weights, found):
                sum_ += value
        found = iter(of_weights)
        return None, None, None, None, total, *(next(found) if need else None for need in needed)


def _parts(x: Tensor, factors: Tensor | None, at_once: int) -> list[tuple[slice, float]]:
    """Neighbouring samples with the same factor, as many as go together, and without those whose factor is 0."""
    values, parts = [1.0] * len(x) if factors is None else factors.flatten().tolist(), []
    start = 0
    for stop in range(1, len(values) + 1):
        if stop == len(values) or stop - start == at_once or values[stop] != values[start]:
            if values[start]:
                parts.append((slice(start, stop), values[start]))
            start = stop
    return parts


def _present_autocast() -> dict[str, Any]:
    """As arguments; without the cache of weights, in which copies that were made without a graph would stay."""
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    return {"device_type": "cpu", "dtype": dtype, "enabled": enabled, "cache_enabled": False}
