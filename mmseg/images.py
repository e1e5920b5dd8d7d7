"""Reading pictures and label masks, strictly: a damaged or hostile file is one clear error, never a half-grey picture.

Sizes are read from the header and checked before anything is decoded. What a camera says about how to hold it (EXIF
orientation) is ignored in frames as it is in masks, so that both have the geometry in which they are stored.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from mmseg.errors import DataError
from mmseg.files import read_bytes, write_bytes

try:
    from zlib_ng import zlib_ng as zlib  # unpacks label maps in a fifth of the time or less
except ImportError:  # not installed, as on machines for which it has no wheel
    import zlib

PICTURES = (".jpg", ".jpeg", ".png")  # of published data
FRAMES = (*PICTURES, ".bmp", ".webp", ".tif", ".tiff")
LABEL_MAPS = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
MAX_PIXELS = 2**26  # twice an 8K frame; below what Pillow warns of
_FRAME_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")  # never what Pillow calls other programs for
_MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF")  # without loss
_ANIMATED = ("PNG", "WEBP", "TIFF", "GIF")  # a second picture in a JPEG is a preview or a gain map
_LABEL_MODES = ("P", "L", "1")  # what Pillow calls 8-bit palette, 8-bit grey and black-and-white
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # tables, comments, application data
_PNG_LEFT = 1  # how a row is stored: as it is (0), as differences to the pixel on the left (1), to others (2 to 4)
_ALONE = 2**15 - 1  # numbers that PyTorch adds up without its threads
_TRIED_ROWS = 8  # of a PNG: where these are stored in a simple way nearly always all are
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
# size; 8 bits, grey or palette, not interlaced
_PNG_HEADER = re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR(.{8})\x08[\0\x03]\0\0\0", re.DOTALL)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts names as people count: 1, 2, 10; ``a9``, ``a10``. Zero-padded names come as in plain string order."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))  # text, digits, text, digits ... text
    parts[1::2] = map(int, parts[1::2])
    return parts, name  # the name itself tells "01" from "1"


def list_pictures(folder: str | Path, suffixes: Collection[str] = PICTURES) -> list[str] | None:
    """Names of the pictures in a folder in the natural order of their stems; None if there is no such folder.

    Names that start with a dot (left behind by macOS) and other files do not count; suffixes in any case do.

    Raises:
        DataError: the folder cannot be read, or two pictures have the same stem.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{folder} cannot be listed ({reason})", "a readable folder", "fix it") from error
    stems: dict[str, str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes or name.startswith("."):
            continue
        if stem in stems:
            raise DataError(
                f"{folder}: {stems[stem]} and {name} have the same stem",
                "one picture for each stem, since results and masks are found by it",
                "move one of them away",
            )
        stems[stem] = name
    return [stems[stem] for stem in sorted(stems, key=natural_key)]


def read_frame(path: str | Path) -> np.ndarray:
    """Decode a picture with OpenCV. Grey ones get three equal channels, transparency is dropped.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        DataError: the file is missing, empty, truncated, animated, too large or no picture.
    """
    data = read_bytes(path)
    complete = _is_complete(data)
    size = _jpeg_size(data) if complete else None
    if size is None:
        _open(path, data, _FRAME_FORMATS, load=not complete).close()
    else:
        _check_pixels(path, *size)
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        frame = None
    if frame is None:
        raise _unusable(path, "no picture that OpenCV can decode")
    return frame


def write_jpeg(path: str | Path, picture: np.ndarray, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 BGR as a JPEG with colours at half resolution, or nothing. Raises WriteError."""
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    write_bytes(path, encoded.tobytes(), sync=False)


def read_mask(path: str | Path) -> np.ndarray:
    """The stored values of a label mask: a PNG of at most 8 bits, with or without a palette.

    Returns:
        (H, W) uint8 raw labels.

    Raises:
        DataError: the file is missing, truncated, animated, or holds colours instead of labels.
    """
    data = read_bytes(path)
    labels = _plain_labels(data, path)
    if labels is not None:
        return labels
    with _open(path, data, _MASK_FORMATS, load=True) as image:
        if image.mode not in _LABEL_MODES:
            raise DataError(
                f"{path}: picture of mode {image.mode}, which holds colours or wide numbers and not labels",
                "an 8-bit PNG of label values (Pillow mode P or L)",
                "convert it to label values, e.g. with tools/convert_to_vspw.py for trees of palette masks",
            )
        mask = np.asarray(image).astype(np.uint8, copy=False)
        if image.mode == "L" and data.startswith(_PNG_START) and data[24] < 8:
            mask = mask // (255 // (2 ** data[24] - 1))  # Pillow has stretched 2 or 4 bits to 0..255
        return mask


def read_colours(path: str | Path) -> np.ndarray:
    """The colours of a picture stored without loss (PNG, BMP, TIFF, GIF), whatever its kind; transparency is dropped.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, truncated, animated, or of a format that changes colours.
    """
    with _open(path, read_bytes(path), _MASK_FORMATS, load=True) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{path}: picture of mode {image.mode}", "8-bit colours", "convert it to an 8-bit PNG")
        return np.asarray(image.convert("RGB"))


def read_palette(path: str | Path) -> np.ndarray | None:
    """The palette of a PNG, (256, 3) uint8 RGB, black where it has no entry; None if it has none.

    Raises:
        DataError: the file is missing or damaged.
    """
    with _open(path, read_bytes(path), _MASK_FORMATS, load=True) as image:
        entries = image.getpalette() if image.mode == "P" else None
    if entries is None:
        return None
    table = np.zeros((256, 3), np.uint8)
    table.reshape(-1)[: len(entries)] = entries
    return table


def _plain_labels(data: bytes, path: str | Path) -> np.ndarray | None:
    """The pixels of an 8-bit palette or grey PNG, nearly all label maps being such.

    Where rows are stored as they are, or as differences to the pixel on the left (as OpenCV writes them), this takes
    two thirds of the time of a general reader. None: an unusual file or a damaged one, for that to look at.

    Raises:
        DataError: the pixels are damaged.
    """
    header = _PNG_HEADER.match(data)
    if header is None:
        return None
    width, height = struct.unpack(">II", header[1])
    if not 0 < width * height <= MAX_PIXELS or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    parts, end = [], 33
    while data[end + 4 : end + 8] != b"IEND":
        size = int.from_bytes(data[end : end + 4], "big")
        kind, start, end = data[end + 4 : end + 8], end + 8, end + 12 + size
        if end > len(data) or kind in (b"acTL", b""):
            return None
        if zlib.crc32(data[start - 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            if kind == b"IDAT":  # Pillow does not look, and takes what it can read for the picture
                raise _unusable(path, "damaged (the checksum of its pixels is another one)")
            return None
        if kind == b"IDAT":
            parts.append(data[start : end - 4])
    size, packed = (height, width), b"".join(parts)
    try:
        first = zlib.decompressobj().decompress(packed, _TRIED_ROWS * (width + 1))
        if max(first[:: width + 1], default=0) > _PNG_LEFT:
            return _grey_labels(data, size)
        rows = zlib.decompressobj().decompress(packed, (width + 1) * height + 1)
    except zlib.error:
        return None
    if len(rows) != (width + 1) * height:
        return None
    stored = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    filters, pixels = stored[:, 0], stored[:, 1:]
    if filters.max() > _PNG_LEFT:
        return _grey_labels(data, size)
    labels = pixels.copy()
    if filters.any():
        # NumPy takes five times as long; threads would wait forever in a process that was forked after they had worked
        for part in torch.from_numpy(labels).split(max(1, _ALONE // width)):
            part.cumsum_(1)
        as_they_are = filters == 0
        labels[as_they_are] = pixels[as_they_are]
    return labels


def _grey_labels(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels of an intact 8-bit PNG by OpenCV, in three quarters of Pillow's time; None where it has a palette."""
    if data[25]:  # OpenCV would look up the colours
        return None
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return labels if labels is not None and labels.shape == size and labels.dtype == np.uint8 else None


def check_frame(image: Any) -> None:
    """Raise DataError unless `image` is an (H, W, 3) uint8 array with at least one pixel."""
    fits = isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    if not fits or not image.size:
        found = f"{image.dtype} array {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            f"a frame that is {found}", "(H, W, 3) uint8 in BGR order, as cv2.imread gives it", "convert the frame"
        )


def check_same_size(frame: np.ndarray, mask: np.ndarray, path: str | Path) -> None:
    """Raise DataError unless the mask (H, W) read from `path` is as large as its frame (H, W, 3)."""
    if frame.shape[:2] != mask.shape[:2]:
        raise DataError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels for a frame of {frame.shape[1]}x{frame.shape[0]}",
            "mask and frame of the same size",
            "resize the mask (nearest neighbour) or take frame and mask from the same release",
        )


def check_flow_size(frame: np.ndarray, flow: np.ndarray, path: str | Path) -> None:
    """Raise DataError unless the picture of optical flow (H, W, 3) from `path` is as large as its frame (H, W, 3)."""
    if frame.shape[:2] != flow.shape[:2]:
        raise DataError(
            f"{path}: optical flow of {flow.shape[1]}x{flow.shape[0]} pixels for a frame of "
            f"{frame.shape[1]}x{frame.shape[0]}",
            "frame and flow of the same size",
            "make the flow from these frames (tools/generate_flow.py)",
        )


def check_flow(frame: np.ndarray, flow: Any, wanted: bool) -> None:
    """Raise DataError unless a model that takes optical flow is given a fitting picture of it, and no other is.

    Args:
        frame: (H, W, 3).
        flow: what is given beside the frame, or None.
        wanted: whether the model takes it.
    """
    if flow is None:
        if wanted:
            raise DataError(
                "a frame without optical flow for a model that looks at frame and flow",
                "a picture of the flow to the next frame, (H, W, 3) uint8 BGR",
                "give step(frame, flow=picture); tools/generate_flow.py makes such pictures",
            )
        return
    if not wanted:
        raise DataError("optical flow for a model that does not look at it", "the frame alone", "leave flow out")
    if not isinstance(flow, np.ndarray) or flow.ndim != 3 or flow.shape[2] != 3 or flow.dtype != np.uint8:
        found = f"{flow.dtype} array {flow.shape}" if isinstance(flow, np.ndarray) else type(flow).__name__
        raise DataError(
            f"optical flow that is {found}",
            "a picture (H, W, 3) uint8 in BGR order, as cv2.imread gives it",
            "colour the flow as tools/generate_flow.py does",
        )
    check_flow_size(frame, flow, "flow")


def _open(path: str | Path, data: bytes, formats: Collection[str], load: bool) -> Image.Image:
    """The picture in `data`, of allowed format and size; decoded, which fails for a truncated one, if `load`."""
    if not data:
        raise _unusable(path, "an empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
            raise _unusable(path, f"{image.n_frames} pictures in one file", "one picture in each file")
        _check_pixels(path, *image.size)
        if load:
            image.load()
        return image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _unusable(path, f"too large to be decoded ({error})", f"at most {MAX_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise _unusable(path, "damaged or no picture", " or ".join(formats) + " picture") from error
    except Exception as error:  # Pillow raises nearly anything for broken files: SyntaxError, struct.error ...
        raise _unusable(path, f"truncated or damaged ({error})") from error


def _check_pixels(path: str | Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _unusable(path, f"a picture of {width}x{height} pixels", f"at most {MAX_PIXELS} pixels")


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG ends as it should; OpenCV fills the missing part of a truncated one with grey."""
    tail = data[-64:].rstrip(b"\x00\r\n ")
    if data.startswith(_JPEG_START):
        return tail.endswith(_JPEG_END)
    return data.startswith(_PNG_START) and tail.endswith(_PNG_END)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG of 8 bits, from its header; None for anything unusual, for Pillow to look at."""
    position = 2
    while data[:2] == _JPEG_START and data[position : position + 1] == b"\xff":
        marker, start = data[position + 1], position + 4
        if marker in (0xC0, 0xC1, 0xC2):  # the start of a frame: baseline, extended, progressive
            bits, height, width, components = struct.unpack_from(">BHHB", data.ljust(start + 6, b"\0"), start)
            return (width, height) if bits == 8 and width and height and components in (1, 3) else None
        if marker not in _JPEG_SEGMENTS:
            return None
        position += 2 + int.from_bytes(data[position + 2 : start], "big")
    return None


def _unusable(path: str | Path, fault: str, expected: str = "an intact picture") -> DataError:
    return DataError(f"{path}: {fault}", expected, "copy or extract the file again")
