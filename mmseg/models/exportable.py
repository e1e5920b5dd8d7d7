"""What a model is cut into to leave the house: functions of tensors alone, and the policy around them as plain data.

:meth:`mmseg.models.base.VideoModel.export_parts` gives both; :mod:`mmseg.exporting` writes them as files. Inside of a
part Python decides nothing that depends on values, so that a tracer sees all of it. What happens between the parts
(which frame's tensors go where, how many are kept, when there are results) is the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class Formula(nn.Module):
    """A function of tensors that uses the weights of a model, as a module of its own.

    Args:
        model: whose weights they are.
        function: takes the tensors of the part's inputs, gives one tensor or a tuple of them.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*inputs)


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        module: takes the tensors of `inputs` by position.
        inputs: name -> an example, of the one size that the graph will take.
        outputs: names of the results, in order.
        dynamic: name of an input -> its axes that may have any length, each with a name: ``{"img": {0: "batch"}}``;
            axes of one name have one length.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def example(self) -> dict[str, Tensor]:
        """The outputs for the example inputs."""
        with torch.no_grad():
            found = self.module(*self.inputs.values())
        return dict(zip(self.outputs, (found,) if isinstance(found, Tensor) else found, strict=True))


@dataclass(frozen=True)
class ExportParts:
    """All parts of a model.

    Attributes:
        parts: by name. A tensor that goes from one part to another has the same name in both.
        policy: plain data for the runner (:mod:`mmseg.exporting.onnx_runner`), which names parts and tensors.
    """

    parts: Mapping[str, Part]
    policy: Mapping[str, Any]


def named_tensors(state: Any, name: str) -> dict[str, Tensor]:
    """The tensors of a state (a tensor, a dict or a named tuple of them) by their names; that of a tensor is `name`."""
    if isinstance(state, Tensor):
        return {name: state}
    return dict(state) if isinstance(state, Mapping) else state._asdict()


def state_of(example: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A state built as `example`, with other tensors: the reverse of :func:`named_tensors`."""
    if isinstance(example, Tensor):
        [value] = tensors.values()
        return value
    return dict(tensors) if isinstance(example, Mapping) else type(example)(**tensors)
