"""Overlay videos: frame, prediction and, where there is one, the truth side by side."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.visualization.palette import overlay

# Container and codec, the first that this build of OpenCV can write.
_FORMATS = ((".mp4", "mp4v"), (".avi", "MJPG"))


class OverlayVideo:
    """A video file that grows by one side-by-side picture per frame.

    Args:
        path: the file without suffix; ``.mp4`` is added, or ``.avi`` where OpenCV cannot write mp4.
        table: (256, 3) RGB colours of the labels.
        fps: frames per second of the file.

    Raises:
        DataError: OpenCV can write neither format, or the folder is not writable.
    """

    def __init__(self, path: str | Path, table: np.ndarray, fps: float = 15.0) -> None:
        self.stem, self.table, self.fps = Path(path), table, fps
        self.path: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, frame: np.ndarray, prediction: np.ndarray, truth: np.ndarray | None = None) -> None:
        """Append one frame: (H, W, 3) uint8 BGR and its (H, W) uint8 label maps."""
        pictures = [frame, overlay(frame, prediction, self.table)]
        if truth is not None:
            pictures.append(overlay(frame, truth, self.table))
        picture = np.concatenate(pictures, axis=1)
        # The codecs want even sides.
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if self._writer is None:
            self._open(picture.shape[1], picture.shape[0])
        if (picture.shape[1], picture.shape[0]) != self._size:
            raise DataError(
                f"{self.path}: picture of {picture.shape[1]}x{picture.shape[0]}",
                f"{self._size[0]}x{self._size[1]} as in the frames before",
                "frames of one size, all with or all without truth",
            )
        self._writer.write(np.ascontiguousarray(picture))

    def _open(self, width: int, height: int) -> None:
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, codec in _FORMATS:
            path = self.stem.with_name(self.stem.name + suffix)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), self.fps, (width, height))
            if writer.isOpened():
                self.path, self._writer, self._size = path, writer, (width, height)
                return
            writer.release()
        raise DataError(
            f"OpenCV cannot write a video to {self.stem.parent}",
            "a writable folder and an OpenCV with the mp4v or MJPG codec",
            "check the folder, or install another build of opencv-python",
        )

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
