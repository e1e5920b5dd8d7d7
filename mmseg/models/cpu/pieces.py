"""Work on many tokens, a few at a time, so that what lies between its steps stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TOKENS = 512  # of a perceptron: hidden activations of a quarter of a megabyte per hundred channels
_MAPS = 64  # of an affinity refinement, which makes a map of every token


def add_residual(x: Tensor, normed: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """``x + branch(normed)`` for tokens (..., C), of which `branch` treats each by itself.

    Without a graph the result may be written into `x`.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return x + branch(normed)
    for part, source in zip(x.flatten(0, -2).split(_TOKENS), normed.flatten(0, -2).split(_TOKENS)):
        part += branch(source)
    return x


def maps_at_once(x: Tensor, total: int) -> int:
    """How many of `total` maps, made of `x` and by themselves, are worked on together."""
    return _MAPS if x.device.type == "cpu" else total
