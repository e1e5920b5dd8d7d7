"""The one test loop: every video is a stream, every frame is decoded once, encoded once and forgotten.

Metrics and writers get each result at once, so that the memory in use does not grow with the length of a video or of
the data set. With several processes each tests whole videos; metrics are merged and files joined at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmseg import distributed
from mmseg.datasets.base import VideoDataset, WholeVideo
from mmseg.datasets.transforms import TestPipeline
from mmseg.distributed import share_videos
from mmseg.engine.ahead import at
from mmseg.engine.predict import predict
from mmseg.errors import ConfigError
from mmseg.evaluation import Evaluator
from mmseg.models.base import VideoModel
from mmseg.progress import FrameProgress
from mmseg.structures import Frame
from mmseg.writing.base import ResultWriter


def test_dataset(
    model: VideoModel,
    dataset: VideoDataset,
    metrics: Evaluator | Sequence[Evaluator] | None = None,
    writers: Sequence[ResultWriter] = (),
    device: torch.device | str | None = None,
    aug_test: bool = False,
    progress: bool = True,
    amp: torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Predict every wanted frame of a data set and feed metrics and writers.

    Args:
        model: moved to `device`; its training mode is restored afterwards.
        dataset: in test mode.
        metrics: accumulators, fed with every frame that has a label and a result; afterwards those of the main process
            hold all videos.
        writers: see :mod:`mmseg.writing`.
        device: default: that of this process (:func:`mmseg.distributed.device`).
        aug_test: average over scales and flips.
        progress: show a progress bar in the main process.
        amp: type to compute in, see :func:`mmseg.engine.predict.predict`; None computes in the type of the weights.
        settings: of the model's streams (:func:`mmseg.engine.predict.stream_settings`).

    Returns:
        The joined ``compute()`` of all metrics in the main process, an empty dict in the others.

    Raises:
        SegError: bad input; the message names the video and the frame. Unfinished result files are removed.
    """
    metrics = list(metrics) if isinstance(metrics, Sequence) else [m for m in [metrics] if m is not None]
    lengths = [video.num_frames for video in dataset.videos]
    owners = share_videos(lengths, distributed.world_size())
    own = [index for index, owner in enumerate(owners) if owner == distributed.rank()]
    with distributed.together():
        if not isinstance(dataset.pipeline, TestPipeline):
            raise ConfigError(
                "a data set without test pipeline", "test_mode=True and a pipeline", "set data.test.pipeline"
            )
        model.check_settings(settings or {})
    pipeline = dataset.pipeline.augmented() if aug_test else dataset.pipeline
    bar = FrameProgress(sum(lengths), sum(lengths[index] for index in own), progress and distributed.is_main())
    try:
        with eval_mode(model, torch.device(device or distributed.device())):
            for writer in writers:
                writer.start(dataset.videos, owners)
            for index in own:
                frames = _counted(dataset.frames(index), bar)
                _test_video(model, dataset, index, frames, pipeline, settings, metrics, writers, amp)
        scores = _merged(metrics)
        for writer in writers:
            writer.finish()
        return scores
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    finally:
        bar.close()


def _test_video(
    model: VideoModel,
    dataset: VideoDataset,
    index: int,
    frames: Iterator[Frame],
    pipeline: TestPipeline,
    settings: Mapping[str, Any] | None,
    metrics: Sequence[Evaluator],
    writers: Sequence[ResultWriter],
    amp: torch.dtype | None,
) -> None:
    """Stream one video through the model."""
    video = dataset.videos[index]
    for writer in writers:
        writer.begin_video(video)
    with at(f"video {video.name!r}", ", "):
        whole = WholeVideo(dataset, index)
        for result in predict(model, frames, pipeline, settings, video=video, source=whole, amp=amp):
            frame = result.frame
            for metric in metrics:
                if frame.truth is not None and result.labels is not None:
                    metric.update(video.name, frame.number, result.labels, frame.truth)
            for writer in writers:
                writer.add(result)
    for metric in metrics:
        metric.end_video(video.name)
    for writer in writers:
        writer.end_video()


def _counted(frames: Iterator[Frame], bar: FrameProgress) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        bar.advance()


@contextmanager
def eval_mode(model: VideoModel, device: torch.device) -> Iterator[None]:
    """The model in eval mode on `device`; its mode is restored afterwards."""
    training = model.training
    if next(model.parameters()).device != device:
        model.to(device)
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _merged(metrics: Sequence[Evaluator]) -> dict[str, Any]:
    """Join the accumulators of all processes in the main one, and compute there."""
    results: dict[str, Any] = {}
    for metric in metrics:
        if distributed.world_size() > 1:
            others = distributed.all_gather_object(metric)
            if distributed.is_main():
                for other in others[1:]:
                    metric.merge(other)
        if distributed.is_main():
            results.update(metric.compute())
    return results
