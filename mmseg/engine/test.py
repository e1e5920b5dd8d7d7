"""The one test loop: every video is a stream, every frame is decoded once, encoded once and forgotten.

Metrics and writers get each label map at once, so that the memory in use does not grow with the length of a video
or of the data set. With several processes each tests whole videos; metrics are merged and files joined at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from mmseg import distributed
from mmseg.datasets.base import Video, VideoDataset
from mmseg.datasets.prefetch import FramePrefetcher
from mmseg.datasets.transforms import TestPipeline
from mmseg.distributed import joining, share_videos
from mmseg.engine.predict import VideoPredictor
from mmseg.engine.whole_video import WholeVideo
from mmseg.errors import SegError
from mmseg.models.base import BaseSegmentor
from mmseg.progress import FrameProgress
from mmseg.writing.results import FrameResult, ResultWriter


class Metric(Protocol):
    """What the loop asks of an accumulator (see :mod:`mmseg.evaluation`)."""

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None: ...

    def merge(self, other: Any) -> None: ...

    def compute(self) -> dict[str, Any]: ...


def test_dataset(
    model: BaseSegmentor,
    dataset: VideoDataset,
    metrics: Metric | Sequence[Metric] | None = None,
    writers: Sequence[ResultWriter] = (),
    device: torch.device | str | None = None,
    aug_test: bool = False,
    progress: bool = True,
    amp: torch.dtype | None = None,
) -> dict[str, Any]:
    """Predict every frame of a data set and feed metrics and writers.

    Args:
        model: moved to `device`; its training mode is restored afterwards.
        dataset: in test mode.
        metrics: accumulators, fed with every frame that has a label; afterwards those of the main process hold all
            videos.
        writers: see :mod:`mmseg.writing.results`.
        device: default: that of this process (:func:`mmseg.distributed.device`).
        aug_test: average over scales and flips.
        progress: show a progress bar in the main process.
        amp: type to compute in under autocast; None computes in float32.

    Returns:
        The joined ``compute()`` of all metrics in the main process, an empty dict in the others.

    Raises:
        SegError: bad input; the message names the video and the frame. Unfinished result files are removed.
    """
    metrics = list(metrics) if isinstance(metrics, Sequence) else [m for m in [metrics] if m is not None]
    lengths = [len(video.frames) for video in dataset.videos]
    owners = share_videos(lengths, distributed.world_size())
    own = [index for index, owner in enumerate(owners) if owner == distributed.rank()]
    pipeline = dataset.pipeline.augmented() if aug_test else dataset.pipeline
    bar = FrameProgress(sum(lengths), sum(lengths[index] for index in own), progress and distributed.is_main())
    try:
        with _eval_mode(model, dataset, torch.device(device or distributed.device())):
            for writer in writers:
                writer.start(dataset.videos, owners)
            for index in own:
                _test_video(model, dataset, index, pipeline, metrics, writers, bar, amp)
        with joining():
            for writer in writers:
                writer.finish()
            return _merged(metrics)
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    finally:
        bar.close()


def _test_video(
    model: BaseSegmentor,
    dataset: VideoDataset,
    index: int,
    pipeline: TestPipeline,
    metrics: Sequence[Metric],
    writers: Sequence[ResultWriter],
    bar: FrameProgress,
    amp: torch.dtype | None,
) -> None:
    """Stream one video through the model."""
    video = dataset.videos[index]
    for writer in writers:
        writer.begin_video(index, video)
    current = 0
    try:
        predictor = VideoPredictor(model, pipeline, WholeVideo(dataset, index), amp)
        with FramePrefetcher(dataset, index, pipeline=pipeline) as frames:
            for number, frame, views, truth in frames:
                prediction = predictor.step_views(views, frame.shape[:2]).cpu().numpy()
                for metric in metrics:
                    if truth is not None:
                        metric.update(video.name, number, prediction, truth)
                for writer in writers:
                    writer.add(FrameResult(index, video, number, frame, prediction, truth))
                bar.advance()
                current = number + 1
    except SegError as error:
        raise type(error)(f"{_place(video, current)}: {error.found}", error.expected, error.action) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise RuntimeError(f"{_place(video, current)}: {error}") from error
    for writer in writers:
        writer.end_video()


def _place(video: Video, number: int) -> str:
    return f"video {video.name!r}, frame {number} ({video.frames[min(number, len(video.frames) - 1)]})"


@contextmanager
def _eval_mode(model: BaseSegmentor, dataset: VideoDataset, device: torch.device) -> Iterator[None]:
    """The model in eval mode on `device` with the clip rule of `dataset`; mode and rule are restored afterwards."""
    training, dilation = model.training, model.dilation
    model.to(device).eval()
    model.dilation = tuple(dataset.dilation)
    try:
        yield
    finally:
        model.train(training)
        model.dilation = dilation


def _merged(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Join the accumulators of all processes in the main one, and compute there."""
    results: dict[str, Any] = {}
    for metric in metrics:
        if distributed.world_size() > 1:
            if hasattr(metric, "finish"):
                metric.finish()  # nothing of unfinished windows needs to travel
            others = distributed.all_gather_object(metric)
            if distributed.is_main():
                for other in others[1:]:
                    metric.merge(other)
        if distributed.is_main():
            results.update(metric.compute())
    return results
