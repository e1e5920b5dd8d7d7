"""Trees of frames and masks at the size of the training: YouTube-VOS at 480, large stills at 384 pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.Image import Resampling

from mmseg.errors import DataError
from mmseg.files import make_folder, read_bytes, write_bytes
from mmseg.images import PICTURES

_YOUTUBE = ("JPEGImages", "Annotations")


def resize_youtube(source: str | Path, target: str | Path, side: int = 480, processes: int = 8) -> int:
    """``<source>/{JPEGImages,Annotations}`` with a shorter side of `side`; returns the number of files.

    Frames are resized bicubic, masks to the nearest pixel and with their palette (GSFM specification, section 9).

    Raises:
        DataError: a folder is missing, or a file cannot be read.
    """
    return sum(
        _resize_all(Path(source) / n, Path(target) / n, partial(_pillow, side=side), processes) for n in _YOUTUBE
    )


def resize_length(source: str | Path, target: str | Path, side: int = 384, processes: int = 8) -> int:
    """All pictures of a tree with a shorter side of `side`, pixels being means of areas; see :func:`resize_youtube`."""
    return _resize_all(Path(source), Path(target), partial(_area, side=side), processes)


def _resize_all(source: Path, target: Path, resize: Callable[[str, bytes], bytes], processes: int) -> int:
    paths = [Path(top, name).relative_to(source) for top, _, names in os.walk(source) for name in sorted(names)]
    paths = [path for path in paths if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    if not paths:
        raise DataError(f"{source}: no pictures", "a folder with " + " or ".join(PICTURES), "check the path")
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(partial(_resize_one, source, target, resize), paths, chunksize=16))


def _resize_one(source: Path, target: Path, resize: Callable[[str, bytes], bytes], path: Path) -> int:
    data = read_bytes(source / path)
    try:
        encoded = resize(path.suffix.lower(), data)
    except (OSError, ValueError, cv2.error) as error:
        raise DataError(f"{source / path}: {error}", "an intact picture", "extract it again") from error
    make_folder((target / path).parent)
    write_bytes(target / path, encoded, sync=False)
    return 1


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with a shorter side of `side`, rounded down."""
    ratio = side / min(width, height)
    return int(width * ratio), int(height * ratio)


def _pillow(suffix: str, data: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        resample = Resampling.NEAREST if suffix == ".png" else Resampling.BICUBIC
        resized = image.resize(_size(*image.size, side), resample)
    encoded = io.BytesIO()
    resized.save(encoded, format="PNG" if suffix == ".png" else "JPEG")
    return encoded.getvalue()


def _area(suffix: str, data: bytes, side: int) -> bytes:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("no picture that OpenCV can decode")
    height, width = image.shape[:2]
    resized = cv2.resize(image, _size(width, height, side), interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, resized)[1].tobytes()
