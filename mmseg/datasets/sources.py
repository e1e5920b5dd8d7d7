"""Frames from anywhere: a video file, pictures, a camera, a stream address, an open capture, or frames of a program.

:func:`video_sources` says which videos a user means, :class:`FrameSource` gives the frames of one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from mmseg.datasets.prefetch import iterate_ahead, read_ahead
from mmseg.datasets.video_inputs import Input, VideoInput, find_videos
from mmseg.datasets.video_reader import CaptureReader, VideoReader, is_address, open_video
from mmseg.errors import DataError
from mmseg.images import read_frame
from mmseg.structures import Frame
from mmseg.values import PositiveInt, checked

Item = TypeVar("Item")
Source = str | Path | int | Sequence[str | Path] | cv2.VideoCapture | Iterable[np.ndarray]


class FrameSource:
    """Iterates over the :class:`Frame` objects of one video, a few of them in memory at a time.

    Files, addresses and pictures are decoded ahead in a background thread.

    Args:
        source: a video file or the address of a stream (``rtsp://...``), a folder of pictures (in the natural order of
            their names; hidden files are left out), a pattern or list of pictures, the number of a camera (see
            :func:`find_videos`), a ``cv2.VideoCapture`` (read from where it stands, and not closed), or frames
            (H, W, 3) uint8 BGR: a list or array of them, or a generator.
        every: take each `every`-th frame only, the first one included.
        max_frames: take at most so many frames; None: all.

    Attributes:
        name: of the file without suffix, of the folder, ``camera<number>``, ``stream`` or ``frames``.
        place: what is read, for messages.
        fps: frames per second of the frames that are given, exact (29.97 is 30000/1001); None if it is not known.
        length: number of frames that are given; None if it is not known. Some files tell no more than an estimate.
        sar: width of a pixel divided by its height.
        live: frames come as time goes by, so that nobody should wait for further ones: a camera, an address, or a
            capture of unknown length.
        fault: after the last frame: what of a file was missing or damaged (which is a warning, too); None if nothing.

    Raises:
        DataError: nothing to read there, or several videos (:func:`video_sources` takes them).
        ConfigError: `every` or `max_frames` is no integer above 0.
    """

    @checked
    def __init__(
        self, source: Source | VideoInput, every: PositiveInt = 1, max_frames: PositiveInt | None = None
    ) -> None:
        self.every, self.max_frames = every, max_frames
        self.fps: Fraction | None = None
        self.length: int | None = None
        self.sar = Fraction(1)
        self.fault: str | None = None
        self.live = False
        self.name = self.place = "frames"
        self._frames: Callable[[], Iterator[Frame]]
        if isinstance(source, VideoInput) or _is_named(source):
            self._init_input(source if isinstance(source, VideoInput) else _one_video(source))
        elif isinstance(source, cv2.VideoCapture):
            if not source.isOpened():
                raise DataError("a cv2.VideoCapture that is not open", "an open one", "check what it was made from")
            reader = CaptureReader(source, self.name)
            self._init_reader(reader)
            self.live = reader.length is None
            self._frames = partial(self._read, reader)
        elif isinstance(source, Iterable) and getattr(source, "ndim", 4) == 4:
            self.length = self._share(len(source) if hasattr(source, "__len__") else None)
            self._frames = lambda: _numbered(self._taken(enumerate(source)))
        else:
            found = f"an array {source.shape}" if isinstance(source, np.ndarray) else repr(source)
            raise DataError(
                f"{found} instead of a video",
                "a video file, a folder of pictures, the number of a camera, a cv2.VideoCapture, or a list or "
                "generator of frames (H, W, 3) uint8 BGR",
                "give one of these; [frame] for a single frame",
            )

    def _init_input(self, video: VideoInput) -> None:
        self.name, self.place, source = video.name, video.place, video.source
        if isinstance(source, tuple):
            self.length = self._share(len(source))
            self._frames = lambda: _pictures(list(self._taken(source)))
            return
        reader = open_video(source)
        self._init_reader(reader)
        if isinstance(source, int) or is_address(source):  # can be read once
            self.live = isinstance(source, int) or reader.length is None
            self._frames = partial(self._read, reader, ahead=is_address(source))
            return
        reader.close()
        self._frames = lambda: self._read(open_video(source), ahead=True)

    def _init_reader(self, reader: VideoReader) -> None:
        self.fps = None if reader.fps is None else reader.fps / self.every
        self.length, self.sar = self._share(reader.length), reader.sar

    def _share(self, length: int | None) -> int | None:
        """How many of `length` frames are given."""
        taken = None if length is None else -(-length // self.every)
        return taken if taken is None or self.max_frames is None else min(taken, self.max_frames)

    def _taken(self, items: Iterable[Item]) -> Iterator[Item]:
        limit = None if self.max_frames is None else (self.max_frames - 1) * self.every + 1
        return itertools.islice(items, 0, limit, self.every)

    def _read(self, reader: VideoReader, ahead: bool = False) -> Iterator[Frame]:
        pictures = reader.pictures(self.every, self.max_frames)
        with closing(iterate_ahead(pictures) if ahead else pictures) as taken:
            yield from _numbered(taken)
        self.fault = reader.fault

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order; their names are file stems, or six-digit numbers in the whole video.

        Raises:
            DataError: a picture cannot be decoded, the size changes, or there is no frame: nothing can be decoded, a
                list is empty, or a generator, stream or camera has been used up.
        """
        frame = None
        with closing(self._frames()) as frames:
            for frame in frames:
                yield frame
        if frame is None:
            raise DataError(f"{self.name}: no frame could be read", "a video with frames", "check or convert the video")


@dataclass(frozen=True)
class LazySource:
    """A video that a user has named and that nothing has opened yet.

    Attributes:
        name: unique among the videos that were named together; it may have parts joined by "/".
        place: the file, folder, address or camera, for messages.
    """

    video: VideoInput
    every: int = 1
    max_frames: int | None = None

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def place(self) -> str:
        return self.video.place

    def open(self) -> FrameSource:
        """The frames. Raises DataError if it is no video that can be read."""
        return FrameSource(self.video, self.every, self.max_frames)


def video_sources(inputs: Input | Iterable[Input], every: int = 1, max_frames: int | None = None) -> list[LazySource]:
    """The one or many videos that a user means, each to be opened when its turn comes.

    Args:
        inputs: files, folders, patterns, lists, cameras, addresses, one or several; see :func:`find_videos`.
        every: take each `every`-th frame only.
        max_frames: take at most so many frames of each video.

    Returns:
        In the order in which they were named (within a folder or pattern the natural order of names), each once. The
        same inputs give the same names in every process. A name is the stem of the file or the name of the folder;
        where several videos share it, folders around them come before it (``a/clip``, ``b/clip``).

    Raises:
        DataError: something is not there or holds no video, or pictures and videos are mixed in one place.
    """
    return [LazySource(video, every, max_frames) for video in find_videos(inputs)]


def _is_named(source: Any) -> bool:
    """Whether it says where a video is, instead of holding its frames."""
    if isinstance(source, list | tuple):
        return bool(source) and all(isinstance(path, str | Path) for path in source)
    return isinstance(source, str | Path | int) and not isinstance(source, bool)


def _one_video(source: Input | Sequence[Input]) -> VideoInput:
    videos = find_videos(source)
    if len(videos) > 1:
        names = ", ".join(video.name for video in videos[:5]) + (", ..." if len(videos) > 5 else "")
        raise DataError(f"{source}: {len(videos)} videos ({names})", "one video", "name one of them")
    return videos[0]


def _numbered(images: Iterable[tuple[int, np.ndarray]]) -> Iterator[Frame]:
    for number, (index, image) in enumerate(images):
        yield Frame(number, f"{index:06d}", image)


def _pictures(paths: Sequence[str]) -> Iterator[Frame]:
    def load(number: int) -> Frame:
        path = paths[number]
        return Frame(number, Path(path).stem, read_frame(path), path=path, reload=partial(read_frame, path))

    return read_ahead(load, range(len(paths)))
