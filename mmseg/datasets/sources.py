"""Frames from a video file, a folder of pictures or a list of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.images import read_frame

_PICTURES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())


class FrameSource:
    """Iterates over ``(name, frame)``, frame (H, W, 3) uint8 BGR, one frame in memory at a time.

    Args:
        source: a video file, a folder of pictures (in the order of their names; hidden files are left out), or frames.

    Attributes:
        name: stem of the file or folder.
        fps: frames per second of a video file, else None.
        length: number of frames; None if the video file does not say.

    Raises:
        DataError: nothing to read there, or a picture that cannot be decoded.
    """

    def __init__(self, source: str | Path | Sequence[np.ndarray]) -> None:
        self.fps: float | None = None
        self.source = source
        if not isinstance(source, str | Path):
            self.name, self.length = "frames", len(source)
            return
        path = Path(source)
        self.source = path
        self.name = path.stem
        if path.is_dir():
            self._files = sorted(
                f for f in path.iterdir() if f.suffix.lower() in _PICTURES and not f.name.startswith(".")
            )
            if not self._files:
                raise DataError(f"folder {path} holds no pictures", f"files {sorted(_PICTURES)}", "check the path")
            self.length: int | None = len(self._files)
        elif path.is_file():
            capture = _open_video(path)
            self.fps = capture.get(cv2.CAP_PROP_FPS) or None
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            self.length = count if count > 0 else None
            capture.release()
        else:
            raise DataError(f"{path} does not exist", "a video file or a folder of pictures", "check the path")

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        if not isinstance(self.source, Path):
            yield from ((f"{i:06d}", frame) for i, frame in enumerate(self.source))
        elif self.source.is_dir():
            yield from ((file.stem, read_frame(file)) for file in self._files)
        else:
            yield from self._video_frames()

    def _video_frames(self) -> Iterator[tuple[str, np.ndarray]]:
        capture = _open_video(self.source)
        number = 0
        try:
            while True:
                ok, frame = capture.read()
                if not ok:
                    break
                yield f"{number:06d}", frame
                number += 1
        finally:
            capture.release()
        if number == 0:
            raise DataError(f"{self.source}: no frame could be decoded", "a video OpenCV can read", "convert the file")


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DataError(f"{path} is no video that OpenCV can read", "a video file (mp4, avi, ...)", "convert the file")
    return capture
