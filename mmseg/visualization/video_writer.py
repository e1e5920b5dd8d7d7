"""A video file that grows picture by picture, encoded in the background; complete under its name, or a part."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmseg.behind import Behind
from mmseg.errors import DataError, SegError, WriteError
from mmseg.files import NewFile, write_error, writing
from mmseg.video_io import exact_rate
from mmseg.visualization.video_encoders import encoders

logger = logging.getLogger("mmseg.visualization")

PART = ".part"  # before the suffix of a video that was broken off
DEFAULT_FPS = Fraction(15)
_PROBE = bytes(2**20)


class VideoWriter:
    """A video file that grows by one picture at a time, and appears when it is closed.

    A context manager: closes at the end of the block; Ctrl-C or SIGTERM keep what is done as a part, other errors
    discard it. A part is called ``<name>.part.mp4``, so that it is not taken for the whole; the whole one replaces it.

    Args:
        path: the file without suffix; ``.mp4`` is added, or ``.webm`` or ``.avi`` where H.264 cannot be written.
        fps: frames per second, written exactly (29.97 as 30000/1001); None: 15.
        sar: width of a pixel divided by its height.

    Attributes:
        path: the file with its suffix; None before the first picture, and if nothing of it is left.
        count: pictures encoded so far.
        is_part: whether the file under `path` is a part.

    Raises:
        DataError: neither PyAV nor OpenCV can write a video.
        WriteError: the folder is not writable, or the disk is full.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None, sar: float | Fraction = 1) -> None:
        self.stem, self.fps = Path(path), exact_rate(fps) or DEFAULT_FPS
        self.sar = Fraction(sar).limit_denominator(1000)
        self.path: Path | None = None
        self.count, self.is_part = 0, False
        self._file: NewFile | None = None
        self._encoder: Any = None
        self._size = (0, 0)
        self._behind = Behind(self._encode)

    def write(self, picture: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8 BGR. Of odd sides the last row or column is left out, codecs want even ones.

        Raises:
            DataError: another size than those before it.
            WriteError: an earlier picture could not be written. Nothing of the file is left.
        """
        # one pixel becomes two; a copy, as the caller may write the next picture into this array
        picture = np.pad(picture, [(0, int(side == 1)) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
        picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
        size = (picture.shape[1], picture.shape[0])
        if self._encoder is None:
            self._open(size)
        if size != self._size:
            raise DataError(
                f"{self.path}: picture of {size[0]}x{size[1]}",
                f"{self._size[0]}x{self._size[1]} as in the frames before",
                "frames of one size",
            )
        with self._failing():
            self._behind.put(picture)

    def _open(self, size: tuple[int, int]) -> None:
        for suffix, opened in encoders(size, self.fps, self.sar):
            path = self.stem.with_name(self.stem.name + suffix)
            self._file = NewFile(path, suffix=suffix)
            try:
                self._encoder = opened(self._file.temporary)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: some of PyAV's
                logger.debug("%s: %s", path, error)
                self._file.discard()
                continue
            self.path, self._size = path, size
            return
        raise DataError(
            f"neither PyAV nor OpenCV can write a video to {self.stem.parent}",
            "PyAV with libx264, or an OpenCV with the mp4v or MJPG codec",
            "pip install av",
        )

    def _encode(self, picture: np.ndarray) -> None:
        self._encoder.encode(picture)
        self.count += 1

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What the encoder has met becomes a WriteError, and nothing of the file is left."""
        try:
            yield
        except Exception as error:
            failure = error if isinstance(error, SegError) else write_error(self.path, error)
            self.discard()
            raise failure from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            WriteError: it is not whole. Nothing of it is left.
        """
        if self._encoder is not None:
            self._finish(self.path)
            self._named(PART).unlink(missing_ok=True)

    def keep_part(self) -> Path | None:
        """Finish early: what has been written becomes a video of its own, ``<name>.part.mp4``. No effect once closed.

        Returns:
            The file; None if there is none, because no picture was written or the disk is full (a warning says so).
        """
        if self._encoder is None:
            self.discard()
            return None
        try:
            self._finish(self._named(PART))
        except SegError as error:
            logger.warning("%s", error)
            return None
        self.is_part = True
        return self.path

    def discard(self) -> None:
        """Remove what has been written, unless it has been closed."""
        encoder, self._encoder = self._encoder, None
        self._behind.discard()
        if encoder is not None:
            encoder.abandon()
            self.path = None
        if self._file is not None:  # a signal may come between file and encoder
            self._file.discard()

    def _named(self, mark: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}{mark}{self.path.suffix}")

    def _finish(self, path: Path) -> None:
        """Let the file appear under `path`, or raise WriteError. A signal meanwhile is raised when that is done."""
        interrupt = None
        with self._failing():
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(self._complete, path)
                try:
                    done.exception()
                except (KeyboardInterrupt, SystemExit) as error:
                    interrupt = error
            done.result()
        self.path, self._encoder = path, None
        if interrupt is not None:
            raise interrupt

    def _complete(self, path: Path) -> None:
        self._behind.close()
        self._encoder.close()
        self._check(self._encoder.stored(self._file.temporary))
        self._file.path = path
        self._file.commit()

    def _check(self, found: int) -> None:
        """Raise WriteError unless all frames are in the file."""
        if found == self.count:
            return
        with writing(self.path), self._file.temporary.open("ab", buffering=0) as file:
            file.write(_PROBE)  # the system says what the library does not
        raise WriteError(
            f"{self.path}: cannot be written, {found} of {self.count} frames have been stored",
            "a writable folder with enough space",
            "free some space, or choose another place",
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.keep_part()
        else:
            self.discard()
