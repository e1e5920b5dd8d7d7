"""Frames from anywhere: a video file, a folder of pictures, a camera, an open capture, or frames of a program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.images import FRAMES, list_pictures, read_frame
from mmseg.structures import Frame

logger = logging.getLogger("mmseg.datasets")

Source = str | Path | int | cv2.VideoCapture | Iterable[np.ndarray]


class FrameSource:
    """Iterates over the :class:`Frame` objects of one video, one of them in memory at a time.

    Args:
        source: a video file or the address of a stream (``rtsp://...``), a folder of pictures (in the natural order of
            their names; hidden files are left out), the number of a camera, a ``cv2.VideoCapture`` (read from where it
            stands, and not closed), or frames (H, W, 3) uint8 BGR: a list or array of them, or a generator.

    Attributes:
        name: of the file without suffix, of the folder, ``camera<number>``, ``stream`` or ``frames``.
        fps: frames per second, where the source says so, else None.
        length: number of frames; None if it is not known.

    Raises:
        DataError: nothing to read there.
    """

    def __init__(self, source: Source) -> None:
        self.fps: float | None = None
        self.length: int | None = None
        self.name = "frames"
        self._frames: Callable[[], Iterator[Frame]]
        if isinstance(source, Path) or (isinstance(source, str) and "://" not in source):
            self._init_path(Path(source))
        elif isinstance(source, str | int) and not isinstance(source, bool):
            self.name = f"camera{source}" if isinstance(source, int) else "stream"
            self._init_capture(_open_video(source), closing=True)
        elif isinstance(source, cv2.VideoCapture):
            self._init_capture(source, closing=False)
        elif isinstance(source, Iterable) and getattr(source, "ndim", 4) == 4:
            self.length = len(source) if hasattr(source, "__len__") else None
            self._frames = partial(_given, source)
        else:
            found = f"an array {source.shape}" if isinstance(source, np.ndarray) else repr(source)
            raise DataError(
                f"{found} instead of a video",
                "a video file, a folder of pictures, the number of a camera, a cv2.VideoCapture, or a list or "
                "generator of frames (H, W, 3) uint8 BGR",
                "give one of these; [frame] for a single frame",
            )

    def _init_path(self, path: Path) -> None:
        pictures = list_pictures(path, FRAMES)
        if pictures is not None:
            self.name, self.length = path.resolve().name, len(pictures)
            self._frames = partial(_pictures, [path / picture for picture in pictures])
            if not pictures:
                raise DataError(f"folder {path} holds no pictures", f"files {', '.join(FRAMES)}", "check the path")
        elif path.is_file():
            self._init_capture(_open_video(path), closing=True)
            self.name, self._frames = path.stem, partial(_video, path, self.length)
        elif str(path).isdecimal():
            self.name = f"camera{path}"
            self._init_capture(_open_video(int(str(path))), closing=True)
        else:
            raise DataError(
                f"{str(path)!r} does not exist, or is no file and no folder",
                "a video file or a folder of pictures",
                "check the path",
            )

    def _init_capture(self, capture: cv2.VideoCapture, closing: bool) -> None:
        if not capture.isOpened():
            raise DataError("a cv2.VideoCapture that is not open", "an open one", "check what it was made from")
        self.fps = capture.get(cv2.CAP_PROP_FPS) or None
        self.length = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        self._frames = partial(_captured, capture, closing)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order.

        Raises:
            DataError: a picture cannot be decoded, or there is no frame: nothing can be decoded, a list is empty, or a
                generator or camera has been used up.
        """
        frame = None
        for frame in self._frames():
            yield frame
        if frame is None:
            raise DataError(f"{self.name}: no frame could be read", "a video with frames", "check or convert the video")


def _given(images: Iterable[np.ndarray]) -> Iterator[Frame]:
    for number, image in enumerate(images):
        yield Frame(number, f"{number:06d}", image)


def _pictures(paths: Sequence[Path]) -> Iterator[Frame]:
    for number, path in enumerate(paths):
        yield Frame(number, path.stem, read_frame(path), path=str(path), reload=partial(read_frame, path))


def _captured(capture: cv2.VideoCapture, closing: bool) -> Iterator[Frame]:
    try:
        yield from _given(_decoded(capture))
    finally:
        if closing:
            capture.release()


def _decoded(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        ok, image = capture.read()
        if not ok:
            return
        yield image


def _video(path: Path, length: int | None) -> Iterator[Frame]:
    frame = None
    for frame in _captured(_open_video(path), closing=True):
        yield frame
    if frame is not None and length is not None and frame.number + 1 < 0.98 * length - 1:  # it may be an estimate
        logger.warning("%s: only %d of its %d frames could be decoded", path, frame.number + 1, length)


def _open_video(source: str | Path | int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    if not capture.isOpened():
        what = f"camera {source}" if isinstance(source, int) else f"{source}"
        raise DataError(
            f"{what} cannot be opened by OpenCV", "a video (mp4, avi, ...) or camera", "convert it, or check the number"
        )
    return capture
