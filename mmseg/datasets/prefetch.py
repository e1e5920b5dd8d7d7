"""Frames of a video in order, decoded and transformed in the background while the model computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.transforms import TestPipeline, View
from mmseg.errors import ConfigError
from mmseg.images import check_same_size

FrameItem = tuple[int, np.ndarray, list[View], np.ndarray | None]


class FramePrefetcher:
    """Iterates over ``(number, frame, views, labels)`` of one video.

    `frame` is (H, W, 3) uint8 BGR, `views` are the network inputs, `labels` (H, W) uint8 or None. At most `depth`
    frames are decoded ahead, whatever the length of the video. An error of a frame is raised when its turn comes.
    Use it as a context manager, or call :meth:`close`, when the iteration may end early.

    Args:
        dataset: in test mode.
        video_index: which video.
        depth: frames decoded ahead.
        threads: background threads; 0 decodes when a frame is asked for.
        pipeline: default: that of the data set.

    Raises:
        ConfigError: there is no test pipeline.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        video_index: int,
        depth: int = 4,
        threads: int = 2,
        pipeline: TestPipeline | None = None,
    ) -> None:
        self.dataset, self.video_index = dataset, video_index
        self.pipeline = pipeline or dataset.pipeline
        if not isinstance(self.pipeline, TestPipeline):
            raise ConfigError("frames of a data set without test pipeline", "test_mode=True", "give it a test pipeline")
        self.depth = max(depth, 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="frames") if threads else None

    def load(self, number: int) -> FrameItem:
        """Decode and transform one frame.

        Raises:
            DataError: frame or mask cannot be read, or differ in size.
        """
        frame = self.dataset.load_frame(self.video_index, number)
        labels = self.dataset.load_label(self.video_index, number)
        if labels is not None:
            check_same_size(frame, labels, self.dataset.videos[self.video_index].labels[number])
        return number, frame, self.pipeline.views(frame), labels

    def __iter__(self) -> Iterator[FrameItem]:
        numbers = range(len(self.dataset.videos[self.video_index].frames))
        if self._pool is None:
            yield from map(self.load, numbers)
            return
        try:
            pending: deque[Future[FrameItem]] = deque()
            for number in numbers:
                pending.append(self._pool.submit(self.load, number))
                if len(pending) > self.depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            self.close()

    def close(self) -> None:
        """Drop what is pending and wait for the threads to end."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> FramePrefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
