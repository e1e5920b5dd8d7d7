"""Overlay videos: frame, prediction and, where there is one, the truth side by side."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from mmseg.errors import DataError, WriteError
from mmseg.files import NewFile, writing
from mmseg.visualization.painting import side_by_side

# Container and codec, the first that this build of OpenCV can write.
_FORMATS = ((".mp4", "mp4v"), (".avi", "MJPG"))
OVERLAY_SUFFIXES = tuple(suffix for suffix, _ in _FORMATS)
_PROBE = bytes(2**20)


class OverlayVideo:
    """A video file that grows by one side-by-side picture per frame, and appears when it is closed.

    A context manager: closes at the end of the block, discards after an error.

    Args:
        path: the file without suffix; ``.mp4`` is added, or ``.avi`` where OpenCV cannot write mp4.
        table: (256, 3) RGB colours of the labels.
        fps: frames per second of the file.
        with_truth: whether there is a place for the truth; None: as the first frame has one or not.

    Attributes:
        path: the file with its suffix; None before the first frame.

    Raises:
        DataError: OpenCV can write neither format.
        WriteError: the folder is not writable, or the disk is full.
    """

    def __init__(self, path: str | Path, table: np.ndarray, fps: float = 15.0, with_truth: bool | None = None) -> None:
        self.stem, self.table, self.fps = Path(path), table, fps
        self.path: Path | None = None
        self._file: NewFile | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._columns = 0 if with_truth is None else 2 + with_truth
        self._count = 0

    def add(self, frame: np.ndarray, prediction: np.ndarray | None, truth: np.ndarray | None = None) -> None:
        """Append one frame: (H, W, 3) uint8 BGR and its (H, W) uint8 label maps.

        Where a map is missing the frame itself is shown.
        """
        self._columns = self._columns or (2 if truth is None else 3)
        picture = side_by_side(frame, [prediction, truth][: self._columns - 1], self.table)
        # The codecs want even sides, none of them zero.
        picture = np.pad(picture, [(0, int(side == 1)) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if self._writer is None:
            self._open(picture.shape[1], picture.shape[0])
        if (picture.shape[1], picture.shape[0]) != self._size:
            raise DataError(
                f"{self.path}: picture of {picture.shape[1]}x{picture.shape[0]}",
                f"{self._size[0]}x{self._size[1]} as in the frames before",
                "frames of one size",
            )
        self._writer.write(np.ascontiguousarray(picture))
        self._count += 1

    def _open(self, width: int, height: int) -> None:
        for suffix, codec in _FORMATS:
            path = self.stem.with_name(self.stem.name + suffix)
            self._file = NewFile(path, suffix=suffix)
            fourcc = cv2.VideoWriter_fourcc(*codec)
            writer = cv2.VideoWriter(str(self._file.temporary), fourcc, float(self.fps), (width, height))
            if writer.isOpened():
                self.path, self._writer, self._size = path, writer, (width, height)
                return
            writer.release()
            self._file.discard()
        raise DataError(
            f"OpenCV cannot write a video to {self.stem.parent}",
            "an OpenCV with the mp4v or MJPG codec",
            "install another build of opencv-python",
        )

    def close(self) -> None:
        """Finish the file.

        Raises:
            WriteError: it is not whole (OpenCV itself says nothing on a full disk). Nothing of it is left.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            self._check()
            self._file.commit()
        finally:
            self._file.discard()

    def discard(self) -> None:
        """Remove what has been written, unless it has been closed."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if self._file is not None:  # a signal may come between file and writer
            self._file.discard()

    def _check(self) -> None:
        """Raise WriteError unless all frames are in the file."""
        temporary = self._file.temporary
        found = _readable_frames(temporary)
        if found == self._count:
            return
        with writing(self.path), temporary.open("ab", buffering=0) as file:
            file.write(_PROBE)  # the system says what OpenCV does not
        raise WriteError(
            f"{self.path}: cannot be written, OpenCV has stored {found} of {self._count} frames",
            "a writable folder with enough space",
            "free some space, or choose another place",
        )

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


def _readable_frames(path: Path) -> int:
    """Frames that a video file says it has, if the last of them can be read; else 0."""
    reader = cv2.VideoCapture(str(path))
    try:
        count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
        return count if count > 0 and reader.read()[0] else 0
    finally:
        reader.release()
