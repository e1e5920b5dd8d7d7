"""Decoding one video file, stream address or camera: with PyAV, or with OpenCV where PyAV cannot.

Both give the same pixels: BGR as the colour tags of the file say, turned as its rotation says.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.video_io import exact_rate, open_capture, pyav

logger = logging.getLogger("mmseg.datasets")

_THREADS = 4  # of a decoder; more would only keep more frames
_PATIENCE = (10.0, 30.0)  # seconds that a server has to answer, and to send the next data
_ESTIMATED = 0.98  # what a file says about its length may be an estimate


class VideoReader:
    """One video, decoded once from its start to its end.

    Attributes:
        place: the file, address or camera, for messages; without the password of an address.
        fps: frames per second, None if not known.
        length: number of frames as the file says, which may be an estimate; None if not known.
        sar: width of a pixel divided by its height, in the picture as it is given.
        fault: after the last frame: what is missing or damaged, None if nothing is.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.fps: Fraction | None = None
        self.length: int | None = None
        self.sar = Fraction(1)
        self.fault: str | None = None
        self._lost = self._damaged = 0  # frames that could not be decoded, or not without faults
        self._reason: str | None = None

    def pictures(self, every: int = 1, max_frames: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(number in the video, (H, W, 3) uint8 BGR) of every `every`-th frame, at most `max_frames`. Closes itself.

        Raises:
            DataError: nothing can be decoded, or the size changes.
        """
        limit = None if max_frames is None else (max_frames - 1) * every + 1
        count, size = 0, None
        with closing(self):
            for decoded in itertools.islice(self._decoded(), limit):
                size = self._checked_size(decoded, count, size)
                if count % every == 0:
                    yield count, self._picture(decoded)
                count += 1
        if count != limit:
            self._tell_missing(count)

    def close(self) -> None:
        """Give the file, connection or camera back."""

    def _decoded(self) -> Iterator[Any]:
        """The frames as the decoder gives them, without a conversion that may not be needed."""
        raise NotImplementedError

    def _size(self, decoded: Any) -> tuple[int, int] | None:
        """(width, height) as stored; None where the decoder sees to one size."""
        return None

    def _picture(self, decoded: Any) -> np.ndarray:
        raise NotImplementedError

    def _checked_size(self, decoded: Any, number: int, before: tuple[int, int] | None) -> tuple[int, int] | None:
        size = self._size(decoded)
        if before not in (None, size):
            raise DataError(
                f"{self.place}: the picture changes from {before[0]}x{before[1]} to {size[0]}x{size[1]} pixels at "
                f"frame {number}",
                "one size in all of a video",
                f"convert it (ffmpeg -i FILE -vf scale={before[0]}:{before[1]} NEW.mp4), or cut it there",
            )
        return size

    def _tell_missing(self, count: int) -> None:
        """Note and warn of what is missing at the end, or is damaged. Raises DataError if that is everything."""
        if count == 0:
            raise self._without_frames()
        missing = self._lost
        if self.length is not None and count < _ESTIMATED * self.length - 1:
            missing = max(self.length - count, missing)
        faults = []
        if missing:
            total = max(self.length or 0, count + missing)
            faults.append(f"only {count} of its {total} frames could be decoded, {missing} are missing")
        elif self._reason:
            faults.append(f"it breaks off after {count} frames")
        if self._damaged:
            faults.append(f"{self._damaged} frame{'s' * (self._damaged > 1)} with damage")
        if faults:
            self.fault = "; ".join(faults) + (f" ({self._reason})" if self._reason else "")
            logger.warning("%s: %s", self.place, self.fault)

    def _without_frames(self) -> DataError:
        found = f"none of its {self.length} frames" if self.length else "no frame"
        why = f" ({self._reason})" if self._reason else ""
        return DataError(
            f"{self.place}: {found} could be read{why}",
            "a video with frames",
            "check that it was copied whole, or convert it",
        )


class PyAVReader(VideoReader):
    """With PyAV; the first frame is decoded at once.

    Args:
        source: a file, or an address.

    Raises:
        DataError: it has no pictures, or none that can be decoded.
        OSError, ValueError, av.error.FFmpegError: PyAV cannot open it.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__(shown(source))
        self._av = pyav()
        live = is_address(source)
        where = str(source) if live else os.path.abspath(source)  # what has a colon in its name is no address then
        options = {"rtsp_transport": "tcp"} if live else {}
        self._frames = self._demuxed()
        self._container = self._av.open(where, options=options, timeout=_PATIENCE if live else None)
        try:
            self._stream = self._video_stream()
            self._stream.thread_type = "SLICE" if live else "AUTO"  # with several threads for frames they come late
            self._stream.codec_context.thread_count = min(os.cpu_count() or 1, _THREADS)
            self.fps = exact_rate(self._stream.average_rate or self._stream.guessed_rate)
            self.length = self._expected_length()
            self._first = next(self._frames, None)
            if self._first is None:
                raise self._without_frames()
        except BaseException:
            self.close()
            raise
        sar = self._stream.sample_aspect_ratio or Fraction(1)
        self.sar = 1 / sar if self._first.rotation % 180 == 90 else sar

    def _video_stream(self) -> Any:
        cover = self._av.stream.Disposition.attached_pic  # of a record
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = sorted({stream.type for stream in self._container.streams} - {"video"})
            raise DataError(
                f"{self.place}: no video in it, only {' and '.join(kinds) or 'nothing'}",
                "a file with pictures",
                "check that it is the right file",
            )
        if streams[0].codec_context is None:
            raise ValueError("PyAV has no decoder for it")
        return streams[0]

    def _expected_length(self) -> int | None:
        """By the index, or else the duration. That of a trimmed mp4 counts frames that are not to be shown, too."""
        count, duration = self._stream.frames, max(self._container.duration or 0, 0)  # microseconds
        by_time = round(duration * self.fps / 10**6) if self.fps else 0
        if count and not (by_time and "mp4" in self._container.format.name):
            return count
        return min(filter(None, (count, by_time)), default=None)

    def _demuxed(self) -> Generator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self._av.error.FFmpegError, OSError) as error:
                self._reason = _said(error)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._lost += 1
                self._reason = _said(error)
                continue
            for frame in frames:
                self._damaged += bool(frame.is_corrupt)
                yield frame

    def _decoded(self) -> Iterator[Any]:
        first, self._first = self._first, None
        return itertools.chain([] if first is None else [first], self._frames)

    def _size(self, decoded: Any) -> tuple[int, int]:
        return decoded.width, decoded.height

    def _picture(self, decoded: Any) -> np.ndarray:
        try:
            picture = decoded.to_ndarray(format="bgr24", interpolation="BICUBIC")  # (H, W, 3), as OpenCV does
        except (ValueError, self._av.error.FFmpegError) as error:
            raise DataError(
                f"{self.place}: frames in the pixel format {decoded.format.name} ({_said(error)})",
                "a format that FFmpeg can turn into BGR",
                "convert it (ffmpeg -i FILE -pix_fmt yuv420p NEW.mp4)",
            ) from error
        if decoded.rotation % 90 == 0 and decoded.rotation:
            picture = np.rot90(picture, decoded.rotation // 90)
        return np.ascontiguousarray(picture)

    def close(self) -> None:
        self._frames.close()  # a container that has been closed must not be touched
        self._container.close()


class CaptureReader(VideoReader):
    """With OpenCV.

    Args:
        capture: open, is read from where it stands.
        place: see :class:`VideoReader`.
        owned: whether it is released after the last frame.
        whole: whether it stands at the start of a file, which says how many frames it has.
    """

    def __init__(self, capture: cv2.VideoCapture, place: str, owned: bool = False, whole: bool = False) -> None:
        super().__init__(place)
        self._capture, self._owned, self._whole = capture, owned, whole
        self.fps = exact_rate(capture.get(cv2.CAP_PROP_FPS))
        self.length = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        width, height = (capture.get(name) for name in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if width > 0 and height > 0:
            turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
            sar = Fraction(int(width), int(height))
            self.sar = 1 / sar if turned and capture.get(cv2.CAP_PROP_ORIENTATION_AUTO) else sar

    def _decoded(self) -> Iterator[bool]:
        return iter(self._capture.grab, False)

    def _picture(self, decoded: Any) -> np.ndarray:
        ok, picture = self._capture.retrieve()
        if not ok:
            raise DataError(f"{self.place}: a frame that cannot be decoded", "an intact video", "convert the video")
        return picture

    def _tell_missing(self, count: int) -> None:
        if self._whole or count == 0:
            super()._tell_missing(count)

    def close(self) -> None:
        if self._owned:
            self._capture.release()


def open_video(source: str | Path | int) -> VideoReader:
    """A reader of a file, of an address (``rtsp://...``), or of the camera of this number.

    Raises:
        DataError: it is empty, no video, broken off at its start, without pictures; there is no such camera.
    """
    reason = "PyAV, which reads videos, is not installed"
    if not isinstance(source, int):
        if not is_address(source) and os.path.getsize(source) == 0:
            raise DataError(f"{source} cannot be opened: an empty file", "a video", "copy or record it again")
        av, began = pyav(), time.monotonic()
        if av is not None:
            try:
                return PyAVReader(source)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                reason = _said(error)
                if is_address(source):
                    if time.monotonic() - began >= _PATIENCE[0]:  # for which FFmpeg has other words
                        reason = f"no answer within {_PATIENCE[0]:g} seconds"
                    raise _unopened(source, reason) from error
    capture = open_capture(source)
    if not capture.isOpened():
        raise _unopened(source, reason)
    return CaptureReader(
        capture, shown(source), owned=True, whole=isinstance(source, str | Path) and not is_address(source)
    )


def _unopened(source: str | Path | int, reason: str) -> DataError:
    if isinstance(source, int):
        cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
        return DataError(
            f"camera {source} cannot be opened",
            f"the number of a camera; this machine has {', '.join(cameras) or 'none that is visible'}",
            "check the number, the plug and the permissions",
        )
    by, what = " by OpenCV or PyAV", "check that it is one and was copied whole, or convert it"
    if is_address(source):
        by, what = "", "check the address"
    return DataError(f"{shown(source)} cannot be opened{by} ({reason})", "a video (mp4, mov, mkv, avi ...)", what)


def is_address(source: object) -> bool:
    """Whether it is the address of a stream, such as ``rtsp://camera/1``."""
    return isinstance(source, str) and "://" in source


def shown(source: str | Path | int) -> str:
    """For messages: without the password of an address."""
    if isinstance(source, int):
        return f"camera {source}"
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", str(source)) if is_address(source) else str(source)


def _said(error: Exception) -> str:
    """What the system or FFmpeg says, in one line."""
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]
