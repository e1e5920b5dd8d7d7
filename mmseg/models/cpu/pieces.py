"""Work on many tokens or pictures, a few at a time, so that what lies between its steps stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_TOKENS = 512  # of a perceptron: hidden activations of a quarter of a megabyte per hundred channels
_SLICE = 1024  # tokens of an element-wise chain
_ENCODED = 2048  # of a layer of an encoder, whose pieces must be worth their many steps
_ROWS = 1 << 18  # hidden numbers of a strip of rows in a perceptron with a convolution
_LEAST = 800  # tokens of a strip: the products of fewer are slower
_FEW = 1 << 21  # hidden numbers that are not worth the trouble
_MAPS = 64  # of an affinity refinement, which makes a map of every token


def add_residual(x: Tensor, normed: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """``x + branch(normed)`` for tokens (..., C), of which `branch` treats each by itself.

    Without a graph the result may be written into `x`.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x + branch(normed)
    for part, source in zip(x.flatten(0, -2).split(_TOKENS), normed.flatten(0, -2).split(_TOKENS)):
        part += branch(source)
    return x


def by_tokens(function: Callable[..., Tensor], tokens: Tensor, *others: Tensor) -> Tensor:
    """``function(tokens, *others)`` for a function of single tokens: (n, S, C), and others (n or 1, S, ...)."""
    if torch.is_grad_enabled() or tokens.device.type != "cpu" or torch.compiler.is_compiling():
        return function(tokens, *others)
    out = torch.empty_like(tokens)
    for parts in zip(*(x.split(_ENCODED, dim=1) for x in (out, tokens, *others))):
        parts[0].copy_(function(*parts[1:]))
    return out


def maps_at_once(x: Tensor, total: int) -> int:
    """How many of `total` maps, made of `x` and by themselves, are worked on together."""
    return _MAPS if x.device.type == "cpu" and not torch.compiler.is_compiling() else total


def pictures_one_by_one(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The maps ``network(x)`` of pictures (n, C, H, W), of which it treats each by itself outside of training."""
    whole = torch.is_grad_enabled() or network.training or torch.compiler.is_compiling()
    if whole or x.device.type != "cpu" or len(x) == 1:
        return network(x)
    parts = zip(*(network(picture) for picture in x.split(1)))
    return [torch.cat([m.permute(0, 2, 3, 1) for m in maps]).permute(0, 3, 1, 2) for maps in parts]  # channels-last


def tokens_in_slices(function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """``function(*tokens)`` of tokens (n, L, C), whose result (n, L, C) depends on those of the same place alone.

    Tensors of another length on axis 1 belong to all tokens of a sample.
    """
    first = tokens[0]
    if torch.is_grad_enabled() or first.device.type != "cpu" or torch.compiler.is_compiling():
        return function(*tokens)
    out, length = None, first.shape[1]
    for i in range(len(first)):
        own = [x[i : i + 1] for x in tokens]
        for start in range(0, length, _SLICE):
            part = function(*(x[:, start : start + _SLICE] if x.shape[1] == length else x for x in own))
            out = part.new_empty(first.shape) if out is None else out
            out[i : i + 1, start : start + _SLICE] = part
    return out


def rows_of_strips(x: Tensor, h: int, hidden: int) -> int:
    """How many rows of a map of `h` rows in row-major tokens (n, S, C) :func:`in_strips` should take at a time.

    Args:
        hidden: channels of what lies between its steps.

    Returns:
        0 where strips are of no use: with a graph, on other devices, for small maps.
    """
    width = x.shape[1] // h
    rows = max(1, round(_ROWS / (width * hidden)))
    whole = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
    return 0 if whole or rows >= h or rows * width < _LEAST or width * h * hidden < _FEW else rows


def in_strips(
    h: int,
    width: int,
    rows: int,
    first: Callable[[slice], Tensor],
    then: Callable[[slice, list[Tensor], tuple[bool, bool]], object],
) -> None:
    """Two steps on a map of h * width tokens, row-major, a strip of rows at a time; the second one sees neighbours.

    What the first gives of a row is kept for the strip below, where it is needed once more.

    Args:
        rows: of a strip.
        first: of a range of tokens, each of them once: (n, L, hidden).
        then: puts the result of a range of tokens, the strip, where it belongs. It is given what `first` gave of
            these rows and of their neighbours above and below, in parts (n, L_i, hidden), and whether the map ends
            above and below the strip, where there are no neighbours. Whatever `first` will be asked for lies below.
    """
    parts, known = [], 0  # rows of which the result of `first` is there
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        needed = min(bottom + 1, h)
        if needed > known:
            parts.append(first(slice(known * width, needed * width)))
        then(slice(top * width, bottom * width), parts, (top == 0, bottom == h))
        parts, known = _last(parts, 2 * width), needed


def _last(parts: list[Tensor], tokens: int) -> list[Tensor]:
    """The last `tokens` of parts (n, L_i, C), or all if they are fewer."""
    *others, last = parts
    more = tokens - last.shape[1]
    return [*_last(others, more), last] if others and more > 0 else [last[:, -tokens:]]
