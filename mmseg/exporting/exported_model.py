"""An export in the place of the model that it was made of: its streams run the graphs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg.clips import prototype_clip
from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.exporting import onnx_runner
from mmseg.exporting.export_folder import DESCRIPTION
from mmseg.exporting.runner_prototypes import video_prototypes
from mmseg.mmengine_names import Config
from mmseg.models.base import VideoModel
from mmseg.models.stream import Stream
from mmseg.structures import Scores, View


def is_export(path: str | Path) -> bool:
    """Whether `path` is the folder of an export."""
    return os.path.isfile(Path(path, DESCRIPTION))


class ExportedModel(VideoModel):
    """The graphs of an export; there are no weights to train.

    Args:
        folder: of the export.
        open_graph: see :func:`mmseg.exporting.onnx_runner.open_graph`, which is the default; another one runs the same
            graphs elsewhere, as that of :mod:`mmseg.exporting.openvino_graphs`.

    Attributes:
        cfg: the section of the config that says what becomes of a frame.

    Raises:
        ConfigError: the package that runs the graphs is missing.
        CheckpointError: no export of this version, or its graphs are of another one.
    """

    def __init__(self, folder: str | Path, open_graph: Callable[..., Any] | None = None) -> None:
        super().__init__()
        try:
            self.runner = onnx_runner.Runner(folder, open_graph or onnx_runner.open_graph)
            self._describe(self.runner.about)
        except ImportError as error:
            extra = {"onnxruntime": "onnx"}.get(error.name, error.name)
            raise ConfigError(
                f"an export without the package {error.name}", error.name, f"pip install -e .[{extra}]"
            ) from error
        except Exception as error:  # onnxruntime and OpenVINO have exceptions of their own
            said = f"{DESCRIPTION} lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{folder}: {said or type(error).__name__}",
                "a folder that tools/export.py of this version wrote",
                "export the model again",
            ) from error
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # says device and type of the frames
        self.eval()

    def _describe(self, about: Mapping[str, Any]) -> None:
        """What the loops ask of a model, from the content of ``model.json``."""
        self.cfg = Config({"data": {"test": about["test"]} if "test" in about else {}})
        self.size = tuple(about["input"]["size"])
        given = ("given", "objects") if about["policy"]["kind"] == "objects" else ()
        self.view_inputs = ("img", *given)
        self.takes_flow = about["input"]["channels"] == 6
        self.num_classes, self.score_kind = about["result"]["classes"], about["result"]["kind"]
        self.CLASSES, self.PALETTE = about["classes"], about["palette"]

    def stream(self, video: Any = None, **settings: Any) -> ExportedStream:
        """See :meth:`VideoModel.stream`."""
        self.check_settings(settings)
        return ExportedStream(self, video)

    def compile_parts(self, **options: Any) -> None:
        """Raises ConfigError: there is nothing that PyTorch could compile."""
        raise ConfigError("compiling an export", "a model with weights", "leave --compile out, or give the checkpoint")


class ExportedStream(Stream):
    """Frames go to a runner of the export's graphs."""

    def __init__(self, model: ExportedModel, video: Any) -> None:
        self.runner, self._video = copy.copy(model.runner), video
        self.answers_at_once = not model.runner.policy.get("late", False)
        super().__init__(model)

    @property
    def ids(self) -> tuple[int, ...]:
        """See :attr:`Stream.ids`."""
        return (self.runner.ids or (0,))[1:]

    def reset(self) -> None:
        super().reset()
        self.runner.reset()
        self._views: dict[int, View] = {}  # those that wait for an answer, without their pictures

    def _take(self, view: View) -> Iterable[Scores]:
        if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
            raise ConfigError(
                "mixed precision (amp, autocast) around an export, whose graphs compute in types of their own",
                "exported_model(EXPORT, 'openvino', torch.bfloat16), or float32",
                "give the type to exported_model",
            )
        if view.size != self.model.size:
            raise DataError(
                f"an input of {view.size[0]}x{view.size[1]} for graphs of {'x'.join(map(str, self.model.size))}",
                "frames of the size that was exported",
                "export again for frames of this size: tools/export.py ... --size H W",
            )
        if self.count == 0:
            self._look_ahead()
        self._views[self.count] = View(view.number, {}, wanted=view.wanted)
        inputs = {name: x.cpu().numpy() if isinstance(x, torch.Tensor) else x for name, x in view.inputs.items()}
        try:
            return self._scores(self.runner.push(**inputs))
        except ValueError as error:
            raise DataError(str(error), "what the exported model takes", "see docs/export.md") from error

    def _rest(self) -> Iterable[Scores]:
        return self._scores(self.runner.finish())

    def _scores(self, answers: Iterable[tuple[int, Any]]) -> list[Scores]:
        found, device = [], self.model.place.device
        for number, values in answers:
            view = self._views.pop(number)
            if view.wanted:
                values = None if values is None else torch.from_numpy(values).to(device)
                ids = None if values is None else self.runner.ids
                found.append(Scores(view.number, values, self.model.score_kind, ids))
        return found

    def _look_ahead(self) -> None:
        """Prototypes of the whole video, if it is at hand."""
        video = self._video
        if "prototypes" in self.runner.policy and hasattr(video, "network_input"):
            frames = prototype_clip(video.num_frames) if video.num_frames >= 10 else range(video.num_frames)
            inputs = (video.network_input(t).cpu().numpy() for t in frames)
            self.runner.prototypes = video_prototypes(self.runner, inputs)
