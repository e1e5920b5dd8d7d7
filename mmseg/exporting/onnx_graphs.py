"""Parts of a model as ONNX graphs, each compared with PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.models.exportable import Part

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
OPSETS = (18, 23)  # the lowest and the highest
TOLERANCE = 1e-3  # of the largest value of an output
WRONG_SHARE = 5e-3  # of its values may miss that: grey levels half-way between two (0.2 % of random, resized frames)


@dataclass(frozen=True)
class Graph:
    """One exported part.

    Attributes:
        data: content of the ``.onnx`` file.
        inputs, outputs: name -> shape; a name in place of a length means that it may be any.
        difference: the largest one between onnxruntime's results and PyTorch's.
    """

    data: bytes
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float


def require_onnx() -> None:
    """Raise ConfigError unless what exports and runs ONNX is installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"an ONNX export without the package(s) {', '.join(missing)}",
            ", ".join(NEEDED),
            "pip install -e .[onnx]",
        )


def traced(part: Part, batch: bool = True) -> torch.export.ExportedProgram:
    """A part as ``torch.export`` sees it.

    Args:
        batch: False fixes the length of the batch to 1.
    """
    examples = [x.clone() for x in part.inputs.values()]  # one tensor twice would become one input
    shapes: list[dict[int, Any] | None] = []
    for number, name in enumerate(part.inputs):
        axes = {axis: role for axis, role in part.dynamic.get(name, {}).items() if batch or role != "batch"}
        for axis in axes:
            if examples[number].shape[axis] == 1:  # would be taken for one that is always 1
                examples[number] = torch.cat([examples[number]] * 2, axis)
        shapes.append({axis: torch.export.Dim(role) for axis, role in axes.items()} or None)
    part.example()  # makes the tables of this size
    with torch.no_grad():
        return torch.export.export(
            part.module, tuple(examples), dynamic_shapes=(tuple(shapes),) if any(shapes) else None
        )


def export_graph(part: Part, opset: int = OPSET, batch: bool = True) -> Graph:
    """The ONNX graph of a part. Raises ConfigError for an opset there is not, or results that are not PyTorch's."""
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ConfigError(f"--opset {opset}", f"{OPSETS[0]} to {OPSETS[1]}", f"leave it out: {OPSET} is usual")
    with _quiet():
        program = torch.onnx.export(
            traced(part, batch),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    return check_graph(_with_named_axes(program.model_proto, part).SerializeToString(), part)


def _with_named_axes(model: Any, part: Part) -> Any:
    """An ONNX model whose axes of any length are called as the part says; the tracer calls them s21 and the like.

    Lengths that depend on them, as ``s21 + 1``, speak of them by the same names.
    """
    names = {}
    for value in model.graph.input:
        for axis, role in part.dynamic.get(value.name, {}).items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = role
    names.pop("", None)  # an axis that has been fixed
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dim.dim_param)
    return model


def check_graph(data: bytes, part: Part) -> Graph:
    """What stands in an ONNX file, and how far its results are from those of PyTorch, for random inputs.

    Raises:
        ConfigError: they are other numbers.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    inputs = {name: _random(example, generator) for name, example in part.inputs.items()}
    with torch.no_grad():
        expected = part.module(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else expected
    found = session.run(list(part.outputs), {name: value.numpy() for name, value in inputs.items()})
    difference = 0.0
    for name, ours, theirs in zip(part.outputs, expected, found):
        off = np.abs(ours.numpy().astype(np.float64) - theirs)
        # of whole numbers (grey levels, labels) a few are decided by the last digit
        wrong = ~(off <= TOLERANCE * max(1.0, float(ours.abs().max())))
        if wrong.mean() > WRONG_SHARE:
            raise ConfigError(
                f"{name}: {wrong.mean():.2%} of onnxruntime's numbers are not PyTorch's, by up to {off.max():.3g}",
                "the same numbers up to rounding",
                "update onnx, onnxscript and onnxruntime, or try another --opset",
            )
        difference = max(difference, float(off.max(initial=0)))
    shapes = (
        {value.name: list(value.shape) for value in values} for values in (session.get_inputs(), session.get_outputs())
    )
    return Graph(data, *shapes, difference)


def _random(example: Tensor, generator: torch.Generator) -> Tensor:
    if example.dtype == torch.uint8:
        return torch.randint(0, 256, example.shape, generator=generator, dtype=torch.uint8)
    if not example.is_floating_point():
        return example
    return torch.randn(example.shape, generator=generator)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notices of the exporter, which speak of its inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
