"""Scores predictions that are on disk already, of this package or of any other origin."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.errors import DataError
from mmseg.evaluation import TemporalConsistency, VSPWEvaluator
from mmseg.writing.predictions import PredictionFolder, read_flow, read_result_pickle

TC_VIDEOS = 100
"""The published TC script looks at the first 100 videos of the split."""


def evaluate_predictions(
    predictions: str | Path,
    dataset: VideoDataset,
    num_classes: int | None = None,
    workers: int = 0,
    progress: bool = True,
    **settings: Any,
) -> VSPWEvaluator:
    """Score the predictions of all frames of a data set; each file is read once.

    Args:
        predictions: a folder with ``<video>/<frame stem>.png``, or a ``res.pkl``.
        dataset: a data set in test mode, with labels.
        num_classes: K, if it is not that of the data set.
        workers: processes that share the videos of a folder; 0 or 1 works in this process.
        progress: show a bar.
        settings: further arguments of :class:`VSPWEvaluator`.

    Raises:
        DataError: predictions are missing, too many or do not fit, or a video has no labels.
    """
    videos = dataset.videos
    for video in videos:
        if video.labels is None:
            raise DataError(
                f"video {video.name!r} has no labels", "a split with labels", "use --split val, or add the labels"
            )
    num_classes = num_classes or dataset.num_classes
    settings = {
        "class_names": dataset.CLASSES if len(dataset.CLASSES) == num_classes else None,
        "ignore_index": dataset.ignore_index,
        "video_order": [video.name for video in videos],
        **settings,
        "num_classes": num_classes,
    }
    folder = None
    if not Path(predictions).is_file():
        folder = PredictionFolder(predictions, {video.name: stems(video) for video in videos})
    with tqdm(total=sum(len(v.frames) for v in videos), unit="frame", desc="evaluate", disable=not progress) as bar:
        if folder is None:
            return _evaluate_pickle(Path(predictions), dataset, settings, bar)
        if workers > 1:
            return _evaluate_in_processes(folder, dataset, settings, workers, bar)
        evaluator = VSPWEvaluator(**settings)
        for index in range(len(videos)):
            _evaluate_video(evaluator, folder, dataset, index, bar)
        return evaluator


def stems(video: VideoFiles) -> list[str]:
    """Names of the frames of a video without folder and suffix, oldest first."""
    return [Path(frame).stem for frame in video.frames]


def _evaluate_video(
    evaluator: VSPWEvaluator, folder: PredictionFolder, dataset: VideoDataset, index: int, bar: tqdm | None = None
) -> None:
    video = dataset.videos[index]
    for number, stem in enumerate(stems(video)):
        evaluator.update(video.name, number, folder.read(video.name, stem), dataset.load_label(index, number))
        if bar is not None:
            bar.update()
    evaluator.end_video()


def _evaluate_in_processes(
    folder: PredictionFolder, dataset: VideoDataset, settings: dict[str, Any], workers: int, bar: tqdm
) -> VSPWEvaluator:
    total = VSPWEvaluator(**settings)
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(folder, dataset, settings)) as pool:
        for video, part in zip(dataset.videos, pool.map(_evaluate_in_worker, range(len(dataset.videos)))):
            total.merge(part)
            bar.update(len(video.frames))
    return total


_worker: tuple[PredictionFolder, VideoDataset, dict[str, Any]]
"""What a worker process was started with, so that it is not sent again with each video."""


def _start_worker(*state: Any) -> None:
    global _worker
    _worker = state


def _evaluate_in_worker(index: int) -> VSPWEvaluator:
    folder, dataset, settings = _worker
    evaluator = VSPWEvaluator(**settings)
    _evaluate_video(evaluator, folder, dataset, index)
    return evaluator


def _evaluate_pickle(path: Path, dataset: VideoDataset, settings: dict[str, Any], bar: tqdm) -> VSPWEvaluator:
    evaluator = VSPWEvaluator(**settings)
    maps = read_result_pickle(path)
    found = 0
    for index, video in enumerate(dataset.videos):
        for number, pred in enumerate(islice(maps, len(video.frames))):
            evaluator.update(video.name, number, pred, dataset.load_label(index, number))
            bar.update()
            found += 1
    found += sum(1 for _ in maps)
    if found != bar.total:
        raise DataError(
            f"{path}: {found} label maps",
            f"{bar.total}, one for each frame of the split",
            "check the split and the data root",
        )
    return evaluator


def temporal_consistency(
    predictions: str | Path,
    flow: str | Path,
    dataset: VideoDataset,
    num_classes: int | None = None,
    align_corners: bool = False,
    progress: bool = True,
) -> TemporalConsistency:
    """TC of the first 100 videos of a data set.

    Args:
        predictions: a folder with ``<video>/<frame stem>.png``.
        flow: a folder with ``<video>/<frame stem>.npy``, the flow from this frame to the next one:
            (2, H, W) or (H, W, 2) float, pixels to the right and down.
        dataset: a data set in test mode.
        num_classes: K, if it is not that of the data set.
        align_corners: sample where the flow points, instead of as published.
        progress: show a bar.

    Raises:
        DataError: files are missing or do not fit.
    """
    metric = TemporalConsistency(num_classes or dataset.num_classes, align_corners)
    videos = dataset.videos[:TC_VIDEOS]
    folder = PredictionFolder(predictions, {video.name: stems(video) for video in videos})
    for video in tqdm(videos, unit="video", desc="TC", disable=not progress):
        names = stems(video)
        for number, (stem, previous) in enumerate(zip(names, [None, *names])):
            arrow = None if previous is None else read_flow(Path(flow) / video.name / f"{previous}.npy")
            metric.update(video.name, number, folder.read(video.name, stem), flow=arrow)
        metric.finish()
    return metric
