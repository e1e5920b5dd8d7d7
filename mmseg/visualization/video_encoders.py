"""Encoders of video files: H.264 or VP9 by PyAV, which browsers play; what OpenCV can write where PyAV is missing."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.video_io import open_capture, pyav, quiet_opencv

logger = logging.getLogger("mmseg.visualization")

_THREADS = 4  # of an encoder; each keeps frames
_QUALITY = {
    "libx264": {"preset": "veryfast", "crf": "19"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"},
}
_ACCURATE = 2 | 0x40000 | 0x4000  # swscale: bilinear, rounded, colours averaged; else all is up to 5 levels too dark
_BT709, _SMPTE170M = 1, 6  # how H.264 numbers colours; the matrix is that which untagged files are read with
_BY_PYAV = ((".mp4", "libx264"), (".webm", "libvpx-vp9"))
_BY_OPENCV = ((".webm", "VP90"), (".mp4", "mp4v"), (".avi", "MJPG"))
VIDEO_SUFFIXES = tuple(dict.fromkeys(suffix for suffix, _ in (*_BY_PYAV, *_BY_OPENCV)))


class PyAVEncoder:
    """One file by PyAV: yuv420p, exact rate, pixel aspect; index at the front, so that it plays while it loads.

    Args:
        path: exists, and is overwritten.
        codec: ``libx264`` or ``libvpx-vp9``.
        size: (width, height), both even.
        fps: frames per second.
        sar: width of a pixel divided by its height; only H.264 keeps it.

    Raises:
        av.error.FFmpegError, OSError, ValueError: there is no such codec, or the file cannot be written.
    """

    def __init__(self, path: Path, codec: str, size: tuple[int, int], fps: Fraction, sar: Fraction) -> None:
        self._av = pyav()
        kind, options = ("webm", {}) if "vp9" in codec else ("mp4", {"movflags": "+faststart"})
        self._container = self._av.open(os.path.abspath(path), "w", format=kind, options=options)
        self._time_base = 1 / fps
        self._count = 0
        try:
            self._stream = self._container.add_stream(codec, rate=fps, options=_QUALITY[codec])
            context = self._stream.codec_context
            (context.width, context.height), context.pix_fmt = size, "yuv420p"
            context.time_base, context.sample_aspect_ratio = self._time_base, sar
            context.gop_size = min(max(round(2 * fps), 12), 60)  # two seconds, to find a place in it quickly
            context.thread_count = min(os.cpu_count() or 1, _THREADS)
            context.color_range, context.colorspace = self._av.video.reformatter.ColorRange.MPEG, _SMPTE170M
            context.color_primaries = context.color_trc = _BT709
            context.open()
        except BaseException:
            self.abandon()
            raise

    def encode(self, picture: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8 BGR."""
        frame = self._av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG", interpolation=_ACCURATE
        )
        frame.colorspace, frame.color_range = _SMPTE170M, self._av.video.reformatter.ColorRange.MPEG
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def abandon(self) -> None:
        """Stop; the file is of no use."""
        with contextlib.suppress(self._av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    def stored(self, path: Path) -> int:
        """How many frames are in a file that has been closed."""
        try:
            with self._av.open(os.path.abspath(path)) as container:
                stream = container.streams.video[0]
                return sum(bool(packet.size) and not packet.is_corrupt for packet in container.demux(stream))
        except (self._av.error.FFmpegError, OSError, ValueError, IndexError):
            return 0


class OpenCVEncoder:
    """One file by OpenCV, which says nothing when a write fails, and knows no pixel aspect.

    Args:
        path, size, fps, sar: see :class:`PyAVEncoder`.
        codec: four letters.

    Raises:
        ValueError: this build cannot write it.
    """

    def __init__(self, path: Path, codec: str, size: tuple[int, int], fps: Fraction, sar: Fraction) -> None:
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), float(fps), size)
        if not self._writer.isOpened():
            self._writer.release()
            raise ValueError(f"OpenCV cannot write {codec}")

    def encode(self, picture: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8 BGR."""
        self._writer.write(picture)

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()

    abandon = close

    def stored(self, path: Path) -> int:
        """How many frames a file says it has, if the last of them can be read; else 0."""
        reader = open_capture(path)
        try:
            count = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
            reader.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
            return count if count > 0 and reader.read()[0] else 0
        finally:
            reader.release()


def encoders(size: tuple[int, int], fps: Fraction, sar: Fraction) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """(suffix, what opens an encoder of a path) of all that may work here, the best first; see :class:`PyAVEncoder`."""
    av = pyav()
    for suffix, codec in _BY_PYAV if av is not None else ():
        if codec in av.codecs_available:
            yield suffix, partial(_opened, PyAVEncoder, codec, size, fps, sar)
    for suffix, codec in _BY_OPENCV:
        yield suffix, partial(_opened, OpenCVEncoder, codec, size, fps, sar)


def _opened(kind: type, codec: str, size: tuple[int, int], fps: Fraction, sar: Fraction, path: Path) -> Any:
    """An encoder, after a warning of what the file will lack."""
    encoder = kind(path, codec, size, fps, sar)
    lacks = ["browsers may not play it"] if codec in ("mp4v", "MJPG") else []
    lacks += [f"its pixels are square instead of {sar}"] if sar != 1 and codec != "libx264" else []
    if lacks:
        logger.warning("videos are written as %s: %s; pip install av gives H.264", codec, ", ".join(lacks))
    return encoder
