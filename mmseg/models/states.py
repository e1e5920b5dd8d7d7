"""States: what a model keeps of frames, tensors with the frames on axis 0, alone or in containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[..., Tensor], *states: Any) -> Any:
    """A state built as the first one, of ``function(...)`` of the tensors that stand at the same place in all of them.

    Args:
        function: of as many tensors as there are states.
        states: built alike of tensors, tuples, lists, dicts and dataclasses. What else is in them is taken from the
            first one.
    """
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    if isinstance(first, dict):
        return {key: map_tensors(function, *(state[key] for state in states)) for key in first}
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first)]
        values = {name: map_tensors(function, *(getattr(state, name) for state in states)) for name in names}
        return dataclasses.replace(first, **values)
    if isinstance(first, (tuple, list)):
        parts = [map_tensors(function, *values) for values in zip(*states, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def select_frames(state: Any, index: slice) -> Any:
    """The frames `index` (axis 0) of every tensor of a state."""
    return map_tensors(lambda tensor: tensor[index], state)


def join_frames(states: Sequence[Any]) -> Any:
    """One state of the frames of several, which are built alike."""
    return states[0] if len(states) == 1 else map_tensors(lambda *tensors: torch.cat(tensors), *states)


def shapes(state: Any) -> list[tuple]:
    """Shape, type and device of every tensor of a state, in order: states that agree in them can be joined."""
    found: list[tuple] = []

    def note(tensor: Tensor) -> Tensor:
        found.append((tuple(tensor.shape), tensor.dtype, tensor.device))
        return tensor

    map_tensors(note, state)
    return found
