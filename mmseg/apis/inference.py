"""A trained model on any video: from a config and a checkpoint to label maps in three lines."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from mmengine.config import Config
from pydantic import AfterValidator

from mmseg.apis.features import FeatureWriter
from mmseg.compat import translate
from mmseg.config import check_config, load_config, override, require
from mmseg.datasets.sources import FrameSource, Source
from mmseg.datasets.transforms import TestPipeline
from mmseg.datasets.transforms.test_time import AUGMENT_RATIOS
from mmseg.engine.predict import VideoPredictor, at, predict, stream_settings
from mmseg.errors import ConfigError, DataError
from mmseg.files import make_folder
from mmseg.folder_lock import FolderLock
from mmseg.making.flow import DEFAULT_FLOW, FlowNetwork, flow_network
from mmseg.making.flow_frames import FlowAhead, with_flow
from mmseg.models import build_segmentor
from mmseg.models.base import VideoModel
from mmseg.progress import FrameProgress
from mmseg.registry import DATASETS
from mmseg.structures import Frame, Result
from mmseg.values import checked
from mmseg.visualization import OverlayVideo, palette_table
from mmseg.weights import load_checkpoint
from mmseg.writing.base import inside
from mmseg.writing.label_png import write_label_png

DEFAULT_FPS = 15.0  # of overlay videos for folders of pictures


def _half(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError("torch.bfloat16 or torch.float16")
    return dtype


AutocastType = Annotated[torch.dtype, AfterValidator(_half)]


@checked
def init_segmentor(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> VideoModel:
    """Build the model of a config for inference.

    Args:
        config: a config file (it is executed) or a loaded config.
        checkpoint: weights to load; None leaves the random initialisation.
        device: where the model goes.
        options: dotted config keys and their new values.

    Returns:
        The model in eval mode, with ``cfg``, and with ``CLASSES`` and ``PALETTE`` of the checkpoint, else of
        the data set's type; None if neither fits the number of classes. ``trained_classes``: those that the checkpoint
        names, None if it does not.

    Raises:
        ConfigError: the config is missing, broken or has unknown keys.
        CheckpointError: the checkpoint is missing, damaged or of another model.
    """
    cfg = override(config, options or {}) if isinstance(config, Config) else load_config(config, options)
    require(cfg, "model")
    check_config(cfg, tell=True)
    model_cfg = {**cfg.model, "pretrained": None}  # the checkpoint holds the backbone as well
    model = build_segmentor(model_cfg, cfg.get("train_cfg"), cfg.get("test_cfg"))
    meta = load_checkpoint(model, checkpoint, purpose="test").get("meta", {}) if checkpoint is not None else {}
    test = (cfg.get("data") or {}).get("test") or {}
    dataset = DATASETS.get(translate("dataset", dict(test))["type"]) if "type" in test else None
    for name in ("CLASSES", "PALETTE"):
        known = (meta.get(name), getattr(dataset, name, None))
        setattr(model, name, next((v for v in known if v is not None and len(v) == model.num_classes), None))
    model.trained_classes = meta.get("CLASSES")
    model.cfg = cfg
    return model.to(_device(device)).eval()


def inference_segmentor(
    model: VideoModel, video: Source, aug_test: bool = False, flow: str | FlowNetwork = DEFAULT_FLOW
) -> list[np.ndarray | None]:
    """Label maps (H, W) uint8 of all frames of one video; None where the model has nothing to say.

    Args:
        model: from :func:`init_segmentor`.
        video: a video file, a folder of pictures, a camera, or frames: see :class:`FrameSource`.
        aug_test: average over scales and flips.
        flow: what computes the optical flow, for models that look at it; see :func:`mmseg.making.flow.flow_network`.

    Raises:
        DataError: frames that cannot be read or differ in size.
        ConfigError: the weights of the flow network cannot be had.
    """
    return [result.labels for result in _predicted(model, FrameSource(video), aug_test, None, flow)]


class VideoStream:
    """A live video: frames go in one by one, label maps come out; memory use does not grow.

    Args:
        model: from :func:`init_segmentor`.
        aug_test: average over scales and flips.
        amp: type to compute in under autocast; None computes in the type of the weights.
        video: name of the video, for models that keep something per video.
        flow: for models that look at optical flow: what computes it (``raft``, ``raft_small``, ``dis``, ``farneback``,
            or a network of :func:`mmseg.making.flow.flow_network`). Results come one frame late then, by :meth:`push`
            and :meth:`finish`. None: it is given with each frame.
        flow_backward: compute the flow to the frame before, and answer at once. This changes the numbers.
        settings: of ``model.stream`` (`dilation`, `prototypes`, ...); default: those of the config.

    Raises:
        ConfigError: the model has no config with a test pipeline, or a setting does not fit it.
    """

    @checked
    def __init__(
        self,
        model: VideoModel,
        aug_test: bool = False,
        amp: AutocastType | None = None,
        video: str | None = None,
        flow: str | FlowNetwork | None = None,
        flow_backward: bool = False,
        **settings: Any,
    ) -> None:
        if flow is not None and not model.takes_flow:
            raise ConfigError(
                f"flow={flow!r} for a {type(model).__name__}, which does not look at it", "no flow", "leave flow out"
            )
        device = next(model.parameters()).device
        self._flow = None if flow is None else FlowAhead(flow_network(flow, device=device), flow_backward)
        settings = {**_settings(model), **settings}
        model.check_settings(settings)
        pipeline = pipeline_of(model, aug_test)
        self._predictor = VideoPredictor(model, pipeline, settings, source=video, amp=amp, keep_images=False)
        self._count = 0

    def step(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> np.ndarray:
        """The label map (H, W) uint8 of the next frame; zeros before the first mask, for models that are given masks.

        Args:
            frame: (H, W, 3) uint8 BGR, as OpenCV reads it.
            flow: (H, W, 3) uint8 coloured optical flow, for models that take it.
            mask: (H, W) object ids that are shown to the model.
            objects: the ids that `mask` speaks about; default: those in it.

        Raises:
            DataError: no such array, or another size than the frames before it (call :meth:`reset` at a cut).
            ConfigError: the results of this model come late: use :meth:`push` and :meth:`finish`.
        """
        self._predictor.require_at_once()
        if self._flow is not None and not self._flow.backward:
            raise ConfigError(
                "step() while flow to the next frame is computed, which is not there yet",
                "push() and finish(), or flow_backward=True, or flow that is given with each frame",
                "iterate over what push() and finish() return",
            )
        results = self._push(frame, flow, mask, objects)
        labels = results[0].labels
        return np.zeros(frame.shape[:2], np.uint8) if labels is None else labels

    def push(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> list[tuple[int, np.ndarray | None]]:
        """Take in the next frame; (frame number, label map) of this frame and earlier ones, as far as they are ready.

        Args and errors: see :meth:`step`.
        """
        return [(result.frame.number, result.labels) for result in self._push(frame, flow, mask, objects)]

    def finish(self) -> list[tuple[int, np.ndarray | None]]:
        """The label maps that are still due; the next frame is then the first of a video."""
        late = self._flow.finish() if self._flow is not None else []
        results = [result for frame in late for result in self._predictor.push(frame)]
        results += self._predictor.finish()
        self._count = 0
        return [(result.frame.number, result.labels) for result in results]

    def remove(self, ids: Sequence[int]) -> None:
        """Stop following objects. Raises ConfigError for models of classes, DataError for what is no list of ids."""
        self._predictor.remove(_ids(ids, "ids"))

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self._predictor.reset()
        if self._flow is not None:
            self._flow.reset()
        self._count = 0

    def _push(
        self, image: Any, flow: np.ndarray | None, mask: np.ndarray | None, objects: Sequence[int] | None
    ) -> list[Result]:
        if objects is not None and mask is None:
            raise DataError("objects without a mask", "the ids that a mask speaks about", "give the mask, too")
        ids = None if objects is None else _ids(objects, "objects")
        if self._flow is not None and isinstance(image, np.ndarray):
            image = image.copy()  # it is looked at again with the next one; cameras write all frames into one buffer
        frame = Frame(self._count, f"{self._count:06d}", image, flow=flow, given=mask, objects=ids)
        if self._flow is not None and flow is not None:
            raise ConfigError("flow given with a frame while it is computed", "one of the two", "leave one out")
        frames = [frame] if self._flow is None else self._flow.push(frame)
        results = [result for ready in frames for result in self._predictor.push(ready)]
        self._count += 1
        return results


@dataclass
class SegmentedVideo:
    """What :func:`segment_video` wrote."""

    num_frames: int
    labels: Path
    overlay: Path | None


def segment_video(
    model: VideoModel,
    video: Source,
    out: str | Path,
    aug_test: bool = False,
    overlay: bool = True,
    progress: bool = True,
    amp: torch.dtype | None = None,
    flow: str | FlowNetwork = DEFAULT_FLOW,
    features: bool = False,
) -> SegmentedVideo:
    """Segment a video frame by frame; memory use does not depend on its length.

    Args:
        model: from :func:`init_segmentor`.
        video: a video file, a folder of pictures, a camera, or frames: see :class:`FrameSource`.
        out: receives ``<video>/labels/<frame>.png`` (mode P, pixel = class number) and
            ``<video>/<video>_overlay.mp4``; label maps of an earlier run under the same name are replaced, those of
            frames that the video does not have are removed.
        aug_test: average over scales and flips.
        overlay: write the overlay video.
        progress: show a progress bar.
        amp: type to compute in under autocast.
        flow: what computes the optical flow, for models that look at it; see :func:`mmseg.making.flow.flow_network`.

    Raises:
        DataError: frames that cannot be read or differ in size.
        ConfigError: the weights of the flow network cannot be had.
        WriteError: files that cannot be written, or another run writes to ``<out>/<video>``.
    """
    if model.takes_flow:  # a missing file of weights is told before anything is written
        flow = flow_network(flow, device=next(model.parameters()).device)
    source = FrameSource(video)
    folder = inside(out, source.name)
    table = palette_table(model.PALETTE, model.num_classes)
    sheets = FeatureWriter(folder / "features", model, pipeline_of(model), table) if features else None
    make_folder(folder / "labels")
    if sheets is not None:
        make_folder(sheets.folder)
    clip = OverlayVideo(folder / f"{source.name}_overlay", table, source.fps or DEFAULT_FPS) if overlay else None
    place = str(video) if isinstance(video, str | Path) else source.name
    with FolderLock(folder, "a segmentation"), clip or nullcontext(), at(place):
        bar = FrameProgress(source.length or 0, source.length or 0, progress)
        written, count = set(), 0
        try:
            for result in _predicted(model, source, aug_test, amp, flow):
                if result.labels is not None:
                    path = inside(folder / "labels", result.frame.name, ".png")
                    write_label_png(path, result.labels, table.tobytes())
                    written.add(path)
                if sheets is not None and result.labels is not None:
                    sheets.write(sheets.folder, result)
                if clip is not None:
                    clip.add(result.frame.picture(), result.labels)
                count += 1
                bar.advance()
        finally:
            bar.close()
        for stale in set((folder / "labels").glob("*.png")) - written:
            stale.unlink()
    return SegmentedVideo(count, folder / "labels", clip.path if clip is not None else None)


def _predicted(
    model: VideoModel, frames: Iterable[Frame], aug_test: bool, amp: torch.dtype | None, flow: str | FlowNetwork
) -> Iterator[Result]:
    if model.takes_flow:
        frames = with_flow(frames, flow_network(flow, device=next(model.parameters()).device))
    return predict(model, frames, pipeline_of(model, aug_test), _settings(model), amp=amp)


def _ids(ids: Any, name: str) -> tuple[int, ...]:
    """Object ids of a list, an array or the like. Raises DataError for anything else."""
    try:
        return tuple(map(operator.index, ids))
    except TypeError as error:
        raise DataError(
            f"{name}={ids!r}", "a list of object ids, which are whole numbers", f"correct {name}"
        ) from error


def _settings(model: VideoModel) -> dict[str, Any]:
    """The stream settings of the config that `model` was made from."""
    cfg = getattr(model, "cfg", {})
    return stream_settings((cfg.get("data") or {}).get("test"), model.test_cfg, model)


def pipeline_of(model: VideoModel, aug_test: bool = False) -> TestPipeline:
    """The test pipeline of the config that `model` was made from. Raises ConfigError if it has none."""
    test = (getattr(model, "cfg", {}).get("data") or {}).get("test") or {}
    if "pipeline" not in test:
        raise ConfigError(
            "the model's config has no data.test.pipeline", "a test pipeline", "make the model with init_segmentor"
        )
    dataset = DATASETS.get(translate("dataset", dict(test))["type"]) if "type" in test else None
    ratios = getattr(dataset, "augment_ratios", AUGMENT_RATIOS)
    return TestPipeline(test["pipeline"], aug_test, "data.test.pipeline", ratios)


def _device(name: str | torch.device) -> torch.device:
    """`name` as a device. Raises ConfigError for an unknown one, or a GPU that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}", "cpu, cuda or cuda:N", "fix the name") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}, {torch.cuda.device_count()} GPUs found", "a GPU of this machine", "use cpu"
        )
    return device
