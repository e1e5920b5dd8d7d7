"""What reading and writing of video files share: PyAV where it is there, OpenCV without its chatter, exact rates."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import cv2

_NTSC = (24, 30, 48, 60, 120, 240)  # these times 1000/1001 are what 23.976, 29.97, 59.94 ... stand for
_NEAR = 1e-5  # relative; 30 and 30000/1001 differ by 1e-3
_LARGEST = 2**16 - 1  # of a denominator, as MPEG-4 wants it


def pyav() -> ModuleType | None:
    """PyAV, or None where it cannot be imported: OpenCV does the work then."""
    try:
        import av
    except ImportError:
        return None
    return av


def exact_rate(fps: float | Fraction | None) -> Fraction | None:
    """Frames per second as a fraction: 29.97 is 30000/1001. None for what is no rate (None, 0, infinite)."""
    if fps is None or not math.isfinite(fps) or fps <= 0:
        return None
    for rate in (Fraction(base * 1000, 1001) for base in _NTSC):
        if abs(float(fps / rate) - 1) < _NEAR:
            return rate
    return Fraction(fps).limit_denominator(_LARGEST if isinstance(fps, Fraction) else 1001)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV and the FFmpeg in it write nothing to the standard error; what is wrong is told by our own errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # is read at the first use
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def open_capture(source: str | Path | int) -> cv2.VideoCapture:
    """A capture of a file, an address or a camera; it may not be open (``isOpened``)."""
    with quiet_opencv():
        return cv2.VideoCapture(source if isinstance(source, int) else str(source))
