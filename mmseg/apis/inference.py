"""A trained model on any video: from a config and a checkpoint to label maps in three lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from mmseg.apis.carried_config import config_of
from mmseg.apis.features import FeatureWriter
from mmseg.compat import translate
from mmseg.config import check_config, load_config, override, require
from mmseg.datasets.sources import FrameSource, Source
from mmseg.datasets.transforms import TestPipeline
from mmseg.datasets.transforms.test_time import AUGMENT_RATIOS
from mmseg.engine.predict import at, predict, stream_settings
from mmseg.errors import ConfigError
from mmseg.files import make_folder
from mmseg.folder_lock import FolderLock
from mmseg.making.flow import DEFAULT_FLOW, FlowNetwork, flow_network
from mmseg.making.flow_frames import with_flow
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


@checked
def init_segmentor(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    options: Mapping[str, Any] | None = None,
) -> VideoModel:
    """Build the model of a config for inference.

    Args:
        config: a config file (it is executed) or a loaded config; None takes that which the checkpoint carries, and
            executes nothing (:func:`mmseg.apis.carried_config.config_of`).
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
    if config is None:
        cfg = config_of(_given(checkpoint), options)
    else:
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
    return model.to(known_device(device)).eval()


def _given(checkpoint: str | Path | None) -> str | Path:
    if checkpoint is None:
        raise ConfigError("config = None without a checkpoint", "one of them", "give config=, or checkpoint=, or both")
    return checkpoint


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
    return predict(model, frames, pipeline_of(model, aug_test), settings_of(model), amp=amp)


def settings_of(model: VideoModel) -> dict[str, Any]:
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


def known_device(name: str | torch.device) -> torch.device:
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
