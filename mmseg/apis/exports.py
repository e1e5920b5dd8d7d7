"""Export of a checkpoint, and the way back: an exported model in the place of the model that it was made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmseg.apis.inference import pipeline_of, settings_of
from mmseg.errors import ConfigError
from mmseg.exporting import onnx_runner, openvino_graphs
from mmseg.exporting.export_folder import export_model
from mmseg.exporting.exported_model import ExportedModel
from mmseg.exporting.onnx_graphs import OPSET, Graph, require_onnx
from mmseg.exporting.picture_parts import Pictures
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Size

BACKENDS = {"onnx": onnx_runner.open_graph, "openvino": openvino_graphs.open_graph}  # that run exports
FRAME_SIZE = (480, 853)  # of VSPW


def export(
    model: VideoModel,
    out: str | Path,
    size: Size = FRAME_SIZE,
    opset: int = OPSET,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Graph]:
    """Write `model` as a folder of ONNX graphs with their policy and a runner.

    Args:
        model: from :func:`mmseg.apis.init_segmentor`, on a CPU.
        out: the folder; must not exist.
        size: (height, width) of the frames; the network's input is what the test pipeline makes of them.
        opset: of ONNX.
        tell: is told what is done.

    Returns:
        The graphs by name.

    Raises:
        ConfigError: packages are missing, `out` exists, the config has no plain test pipeline, or the model cannot be
            exported.
        DataError: a size that the model cannot take.
        WriteError: the folder cannot be written.
    """
    require_onnx()
    pipeline = pipeline_of(model)
    if pipeline.num_views != 1:
        raise ConfigError(
            f"data.test.pipeline makes {pipeline.num_views} views of a frame", "one view", "export without augmentation"
        )
    picture = np.zeros((*size, 3), np.uint8)
    [view] = pipeline.checked_views(Frame(0, "", picture, picture if model.takes_flow else None), model.takes_flow)
    pictures = Pictures.of(pipeline, tuple(size), view.size, view.steps)
    test = model.cfg.data.test
    about = {"test": plain({name: test[name] for name in ("type", "pipeline") if name in test})}
    return export_model(model, view.size, out, about, pictures, settings_of(model), opset=opset, tell=tell)


def exported_model(
    folder: str | Path, backend: str = "onnx", amp: torch.dtype | None = None, options: Any = None
) -> ExportedModel:
    """An export in the place of a model, for streams on a CPU.

    Args:
        folder: of the export.
        backend: what runs the graphs, one of :data:`BACKENDS`.
        amp: ``torch.bfloat16`` lets OpenVINO compute in this type, on processors that have it.
        options: of a command that has been given them; they would be without effect.

    Raises:
        ConfigError: an unknown backend, its packages are missing, or something that has no effect on an export.
        CheckpointError: the folder is no export, or a damaged one.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"--backend {backend} for {folder}, an export", " or ".join(BACKENDS), "leave --backend out")
    if options:
        raise ConfigError(f"--options for {folder}, an export", "a checkpoint", "export again, or leave --options out")
    if amp is None:
        return ExportedModel(folder, BACKENDS[backend])
    precision = str(amp).removeprefix("torch.")
    _check_precision(f"--amp {precision} for {folder}, an export that {backend} runs", backend, precision)
    return ExportedModel(folder, partial(BACKENDS[backend], precision=precision))


def _check_precision(found: str, backend: str, precision: str) -> None:
    """Raise ConfigError unless the backend computes in this type here, or its packages are missing."""
    if (backend, precision) != ("openvino", "bfloat16"):
        raise ConfigError(found, "--amp bfloat16 with --backend openvino", "leave --amp out, or give both")
    if importlib.util.find_spec("openvino") and not openvino_graphs.has_bfloat16():
        raise ConfigError(
            found, "a processor with instructions for bfloat16 (lscpu: avx512_bf16, amx_bf16)", "leave --amp out"
        )


def require_backend(backend: str | None, checkpoint: str) -> None:
    """Raise ConfigError for a backend that runs exports, and a checkpoint."""
    if backend in BACKENDS:
        raise ConfigError(
            f"--backend {backend} with {checkpoint}",
            "the folder of an export",
            f"python tools/export.py [CONFIG] {checkpoint} --out EXPORT, and give EXPORT in its place",
        )


def plain(value: Any) -> Any:
    """A part of a config as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
