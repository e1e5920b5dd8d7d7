"""Trees of frames and masks at the size of the training: YouTube-VOS at 480, large stills at 384 pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
from PIL import Image
from PIL.Image import Resampling

from mmseg.errors import DataError
from mmseg.files import make_folder, read_bytes, write_bytes
from mmseg.images import PICTURES, read_frame
from mmseg.worker_pool import run_in_processes

_YOUTUBE = ("JPEGImages", "Annotations")


def resize_youtube(source: str | Path, target: str | Path, side: int = 480, processes: int = 8) -> int:
    """``<source>/{JPEGImages,Annotations}`` with a shorter side of `side`; returns the number of files.

    Frames are resized bicubic, masks to the nearest pixel and with their palette (GSFM specification, section 9).

    Raises:
        DataError: before anything is written, a folder is missing, or `target` is `source` or a part of it; a file
            cannot be read.
    """
    return _resize_all(source, target, _YOUTUBE, partial(_pillow, side=side), processes)


def resize_length(source: str | Path, target: str | Path, side: int = 384, processes: int = 8) -> int:
    """All pictures of a tree with a shorter side of `side`, pixels being means of areas; see :func:`resize_youtube`."""
    return _resize_all(source, target, ("",), partial(_area, side=side), processes)


def _resize_all(
    source: str | Path, target: str | Path, parts: Sequence[str], resize: Callable[[str, Path], bytes], processes: int
) -> int:
    """Resize the pictures of some folders of `source`."""
    source, target = Path(source), Path(target)
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise DataError(f"{target} as the target of {source}", "a folder outside of it", "choose another folder")
    paths = [path for part in parts for path in _pictures(source, part)]
    return sum(run_in_processes(partial(_resize_one, source, target, resize), paths, processes))


def _pictures(source: Path, part: str) -> list[Path]:
    """Pictures at any depth of a folder, relative to `source`."""
    found = [Path(top, name) for top, _, names in os.walk(source / part) for name in sorted(names)]
    found = [path for path in found if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    if not found:
        raise DataError(f"{source / part}: no pictures", "a folder with " + " or ".join(PICTURES), "check the path")
    return [path.relative_to(source) for path in found]


def _resize_one(source: Path, target: Path, resize: Callable[[str, Path], bytes], path: Path) -> int:
    try:
        encoded = resize(path.suffix.lower(), source / path)
    except (OSError, ValueError, cv2.error, Image.DecompressionBombError) as error:
        raise DataError(f"{source / path}: {error}", "an intact picture", "extract it again") from error
    make_folder((target / path).parent)
    write_bytes(target / path, encoded, sync=False)
    return 1


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with a shorter side of `side`, rounded down."""
    ratio = side / min(width, height)
    return int(width * ratio), int(height * ratio)


def _pillow(suffix: str, path: Path, side: int) -> bytes:
    with Image.open(io.BytesIO(read_bytes(path))) as image:
        resample = Resampling.NEAREST if suffix == ".png" else Resampling.BICUBIC
        resized = image.resize(_size(*image.size, side), resample)
    encoded = io.BytesIO()
    resized.save(encoded, format="PNG" if suffix == ".png" else "JPEG")
    return encoded.getvalue()


def _area(suffix: str, path: Path, side: int) -> bytes:
    image = read_frame(path)  # as it is stored, whatever EXIF says: its mask is not turned either
    height, width = image.shape[:2]
    resized = cv2.resize(image, _size(width, height, side), interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, resized)[1].tobytes()
