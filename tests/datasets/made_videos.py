"""Small real video files, written by PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NTSC = Fraction(30000, 1001)
CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".nut": "ffv1"}  # of files that are not H.264


def greys(count: int = 11, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Pictures of one grey each, 10, 30, 50 ..."""
    return [np.full((*size, 3), 10 + 20 * i, np.uint8) for i in range(count)]


def noise(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Pictures that no codec can predict from those before them."""
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray] = (),
    fps: Fraction = NTSC,
    sar: int = 1,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
    **tags: int,
) -> Path:
    """A video of BGR pictures; `tags`: of the codec context (colours, gop_size)."""
    pictures = list(pictures) or greys()
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(CODECS.get(path.suffix, "libx264"), rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.sample_aspect_ratio = Fraction(sar)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
