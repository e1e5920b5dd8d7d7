"""Scores predictions that are on disk already, of this package or of any other origin."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmseg.config import load_config, require
from mmseg.datasets import build_dataset
from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.errors import DataError
from mmseg.evaluation import Evaluator, TemporalConsistency
from mmseg.files import read_bytes, write_bytes
from mmseg.visualization.plots import plot_confusion
from mmseg.worker_pool import run_in_processes
from mmseg.writing.base import ResultOptions
from mmseg.writing.label_pickle import read_label_pickle
from mmseg.writing.label_png import LabelPngFolder

DATA_ROOT = "data/vspw/VSPW_480p"
TC_VIDEOS = 100
"""The published TC script looks at the first 100 videos of the split."""


def stored_dataset(
    config: str | Path | None = None, options: Mapping[str, Any] | None = None, **settings: Any
) -> VideoDataset:
    """The data set that predictions are to be scored on: VSPW or one in its layout, or ``data.test`` of a config.

    Args:
        config: a config file.
        options: dotted config keys and their new values.
        settings: arguments of the data set that win over those of the config; None leaves them as they are.

    Raises:
        ConfigError: the config cannot be used, or an argument cannot work.
        DataError: the data cannot be found.
    """
    if config is None:
        section = {"type": "VSPWDataset", "data_root": DATA_ROOT, "split": "val"}
    else:
        cfg = load_config(config, options)
        require(cfg, "data.test")
        section = dict(cfg.data.test)
    section.update({name: value for name, value in settings.items() if value is not None})
    return build_dataset(section, where="data.test", test_mode=True)


def evaluate_predictions(
    predictions: str | Path,
    dataset: VideoDataset,
    options: ResultOptions | None = None,
    workers: int = 0,
    progress: bool = True,
) -> list[Evaluator]:
    """Score the predictions of all frames of a data set; each file is read once.

    Args:
        predictions: a folder with ``<video>/<frame>.png``, or a ``res.pkl``.
        dataset: a data set in test mode, with labels.
        options: which metrics, and how.
        workers: processes that share the videos of a folder; 0 or 1 works in this process.
        progress: show a bar.

    Returns:
        The data set's evaluators, all frames counted.

    Raises:
        ConfigError: the data set has no such scores.
        DataError: predictions are missing, too many or do not fit, or what comes out cannot be.
    """
    options = options or ResultOptions()
    videos = dataset.videos
    evaluators = dataset.metrics(options)
    folder = None
    if not Path(predictions).is_file():
        folder = LabelPngFolder(predictions, {video.name: stems(video) for video in videos})
    with tqdm(total=sum(v.num_frames for v in videos), unit="frame", desc="evaluate", disable=not progress) as bar:
        if folder is None:
            _evaluate_pickle(Path(predictions), dataset, evaluators, bar)
        elif workers > 1:
            _evaluate_in_processes(folder, dataset, options, evaluators, workers, bar)
        else:
            for index in range(len(videos)):
                _evaluate_video(evaluators, _stored(folder, videos[index]), dataset, index, bar)
    for evaluator in evaluators:
        evaluator.check_plausible()
    return evaluators


def stems(video: VideoFiles) -> list[str]:
    """Names of the frames of a video without folder and suffix, oldest first."""
    return [Path(frame).stem for frame in video.frames]


def _stored(folder: LabelPngFolder, video: VideoFiles) -> Iterator[np.ndarray]:
    return (folder.read(video.name, stem) for stem in stems(video))


def _evaluate_video(
    evaluators: list[Evaluator],
    maps: Iterator[np.ndarray | None],
    dataset: VideoDataset,
    index: int,
    bar: tqdm | None = None,
) -> int:
    """Feed the evaluators with the maps of one video; returns how many there were."""
    video, number = dataset.videos[index], -1
    for number, pred in enumerate(maps):
        truth = dataset.load_label(index, number)
        if pred is None and truth is not None:
            raise DataError(
                f"no result (None) for frame {number} of video {video.name!r}, which has a label",
                "a label map for every labelled frame",
                "test with a model that labels every frame, or use a split without this video",
            )
        for evaluator in evaluators:
            if truth is not None:
                evaluator.update(video.name, number, pred, truth)
        if bar is not None:
            bar.update()
    for evaluator in evaluators:
        evaluator.end_video(video.name)
    return number + 1


def _evaluate_in_processes(
    folder: LabelPngFolder,
    dataset: VideoDataset,
    options: ResultOptions,
    evaluators: list[Evaluator],
    workers: int,
    bar: tqdm,
) -> None:
    work = partial(_evaluate_alone, folder, dataset, options)
    for video, parts in zip(dataset.videos, run_in_processes(work, range(len(dataset.videos)), workers)):
        for total, part in zip(evaluators, parts):
            total.merge(part)
        bar.update(video.num_frames)


def _evaluate_alone(
    folder: LabelPngFolder, dataset: VideoDataset, options: ResultOptions, index: int
) -> list[Evaluator]:
    """Evaluators that have seen one video."""
    evaluators = dataset.metrics(options)
    _evaluate_video(evaluators, _stored(folder, dataset.videos[index]), dataset, index)
    return evaluators


def _evaluate_pickle(path: Path, dataset: VideoDataset, evaluators: list[Evaluator], bar: tqdm) -> None:
    maps, expected = read_label_pickle(path), sum(video.num_frames for video in dataset.videos)
    found = 0
    for index, video in enumerate(dataset.videos):
        found += _evaluate_video(evaluators, islice(maps, video.num_frames), dataset, index, bar)
    found += sum(1 for _ in maps)
    if found != expected:
        raise DataError(
            f"{path}: {found} label maps",
            f"{expected}, one for each frame of the split",
            "check the split and the data root",
        )


def label_maps(
    predictions: str | Path, dataset: VideoDataset, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], np.ndarray]:
    """Some of the label maps (H, W) of a folder or a ``res.pkl``, by number of video and of frame.

    Raises:
        DataError: they cannot be read.
    """
    if not wanted:
        return {}
    if Path(predictions).is_file():
        places = ((v, t) for v, video in enumerate(dataset.videos) for t in range(video.num_frames))
        return {place: labels for place, labels in zip(places, read_label_pickle(predictions)) if place in wanted}
    videos = {index: dataset.videos[index] for index, _ in wanted}
    folder = LabelPngFolder(predictions, {video.name: stems(video) for video in videos.values()})
    return {(v, t): folder.read(videos[v].name, stems(videos[v])[t]) for v, t in wanted}


def temporal_consistency(
    predictions: str | Path,
    flow: str | Path,
    dataset: VideoDataset,
    align_corners: bool = False,
    progress: bool = True,
) -> TemporalConsistency:
    """TC of the first 100 videos of a data set.

    Args:
        predictions: a folder with ``<video>/<frame>.png``.
        flow: see :func:`warped_consistency`.
        dataset: a data set in test mode.
        align_corners: sample where the flow points, instead of as published.
        progress: show a bar.

    Raises:
        DataError: files are missing or do not fit.
    """
    names = {video.name: stems(video) for video in dataset.videos[:TC_VIDEOS]}
    folder = LabelPngFolder(predictions, names)
    return warped_consistency(folder.read, names, flow, dataset.num_classes, align_corners, progress)


def warped_consistency(
    read: Callable[[str, str], np.ndarray],
    frames: Mapping[str, Sequence[str]],
    flow: str | Path,
    num_classes: int,
    align_corners: bool = False,
    progress: bool = True,
) -> TemporalConsistency:
    """TC of stored predictions.

    Args:
        read: gives the labels (H, W) of a video's frame.
        frames: video -> names of its frames, oldest first.
        flow: a folder with ``<video>/<frame>.npy``, the flow from this frame to the next one: (2, H, W) or (H, W, 2)
            float, pixels to the right and down.
        num_classes: K; 256 for object ids.
        align_corners: sample where the flow points, instead of as published.
        progress: show a bar.

    Raises:
        DataError: files are missing or do not fit.
    """
    metric = TemporalConsistency(num_classes, align_corners)
    for video, names in tqdm(frames.items(), unit="video", desc="TC", disable=not progress):
        for number, (stem, previous) in enumerate(zip(names, [None, *names])):
            arrow = None if previous is None else read_flow(Path(flow) / video / f"{previous}.npy")
            metric.update(video, number, read(video, stem), flow=arrow)
        metric.end_video(video)
    return metric


def read_flow(path: str | Path) -> np.ndarray:
    """Optical flow of one frame from a ``.npy`` file, as stored: (2, H, W) or (H, W, 2) float.

    Raises:
        DataError: missing or damaged.
    """
    try:
        return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise DataError(
            f"{path}: cannot be read ({error})", "an array (2, H, W) saved with numpy.save", "compute the flow again"
        ) from error


def joined_reports(evaluators: Sequence[Evaluator]) -> dict[str, Any]:
    """The reports of several evaluators as one; of those with the same entries the later one counts."""
    joined: dict[str, Any] = {}
    for evaluator in evaluators:
        for name, value in evaluator.report().items():
            both = isinstance(value, Mapping) and isinstance(joined.get(name), Mapping)
            joined[name] = {**joined[name], **value} if both else value
    return joined


def write_confusion(path: str | Path, evaluators: Sequence[Evaluator]) -> bool:
    """Draw the confusion matrix of the evaluator that has one as a PNG; False if none has. Raises WriteError."""
    for evaluator in evaluators:
        if hasattr(evaluator, "confusion"):
            write_bytes(path, plot_confusion(evaluator.confusion(), evaluator.class_names))
            return True
    return False
