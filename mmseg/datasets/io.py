"""Reading frames and label masks, strictly: a damaged file is an error and never a half-grey picture."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmseg.errors import DataError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
_LABEL_MODES = ("P", "L", "1")  # what Pillow calls 8-bit palette, 8-bit grey and black-and-white


def read_frame(path: str | Path) -> np.ndarray:
    """Decode a picture with OpenCV.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        DataError: the file is missing, empty, truncated or no picture.
    """
    data = _read_bytes(path)
    if not _is_complete(data):
        _decode_strictly(path, data)
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise _undecodable(path, "no picture that OpenCV can decode")
    return frame


def read_mask(path: str | Path) -> np.ndarray:
    """The stored values of a label mask: an 8-bit PNG with or without a palette.

    Returns:
        (H, W) uint8 raw labels.

    Raises:
        DataError: the file is missing, truncated, or holds colours instead of labels.
    """
    try:
        with Image.open(io.BytesIO(_read_bytes(path))) as image:
            mode = image.mode
            mask = np.asarray(image) if mode in _LABEL_MODES else None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for broken PNG chunks
        raise _undecodable(path, f"damaged or no picture ({error})") from error
    if mask is None:
        raise DataError(
            f"{path}: picture of mode {mode}, which holds colours or wide numbers and not labels",
            "an 8-bit PNG of label values (Pillow mode P or L)",
            "convert it to label values, e.g. with tools/convert_to_vspw.py for trees of palette masks",
        )
    return mask.astype(np.uint8, copy=False)


@lru_cache(maxsize=1)
def _reduction_table() -> np.ndarray:
    """What becomes of every raw value: 0 -> 255, then minus 1, then 254 -> 255, in uint8."""
    table = np.arange(256, dtype=np.uint8)
    table[0] = 255
    table -= 1
    table[table == 254] = 255
    table.setflags(write=False)
    return table


def reduce_labels(mask: np.ndarray) -> np.ndarray:
    """Raw labels to network labels: 0 and 255 become 255 (ignored), v becomes v - 1. Shapes (H, W) uint8."""
    return cv2.LUT(mask, _reduction_table())


def check_labels(labels: np.ndarray, num_classes: int, path: str | Path, reduced: bool = True) -> None:
    """Raise DataError if `labels` holds a value that is neither a class nor 255.

    Args:
        labels: (H, W) uint8 network labels.
        num_classes: K; valid labels are 0..K-1.
        path: file they came from.
        reduced: whether raw labels are one higher, for the message.
    """
    wrong = labels[(labels >= num_classes) & (labels != 255)]
    if wrong.size:
        shift = int(reduced)
        raise DataError(
            f"{path}: label value {int(wrong[0]) + shift} in {wrong.size} pixels",
            f"values {shift}..{num_classes - 1 + shift} for the {num_classes} classes"
            + (", 0 and 255 for ignored pixels" if reduced else ", 255 for ignored pixels"),
            "fix the mask, or give the data set its class names (key `classes`, or classes.json in data_root)",
        )


def check_same_size(frame: np.ndarray, mask: np.ndarray, path: str | Path) -> None:
    """Raise DataError unless the mask (H, W) read from `path` is as large as its frame (H, W, 3)."""
    if frame.shape[:2] != mask.shape[:2]:
        raise DataError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels for a frame of {frame.shape[1]}x{frame.shape[0]}",
            "mask and frame of the same size",
            "resize the mask (nearest neighbour) or take frame and mask from the same release",
        )


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error})",
            "a readable file",
            "check the path and its permissions",
        ) from error
    if not data:
        raise _undecodable(path, "an empty file")
    return data


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG ends as it should; OpenCV fills the missing part of a truncated one with grey."""
    tail = data[-64:].rstrip(b"\x00\r\n ")
    if data.startswith(_JPEG_START):
        return tail.endswith(_JPEG_END)
    if data.startswith(_PNG_START):
        return tail.endswith(_PNG_END)
    return True


def _decode_strictly(path: str | Path, data: bytes) -> None:
    """Pillow refuses truncated files; one with something harmless after its end passes, if at the cost of a decode."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(path, f"truncated ({error})") from error


def _undecodable(path: str | Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}", "an intact picture", "copy or extract the file again")
