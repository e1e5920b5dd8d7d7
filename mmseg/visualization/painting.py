"""Label maps in colour: alone, over their frames, and beside them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mmseg.visualization.palette import IGNORE_INDEX

OPACITY = 0.45
_SMALL = 300  # rows; with less the outlines would hide too much
_LINES_PER_PIXEL = 720  # rows of a frame for every pixel of the outlines' width


def colourise(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels -> (H, W, 3) uint8 BGR, as OpenCV writes it."""
    packed = np.zeros((256, 4), np.uint8)
    packed[:, :3] = table[:, ::-1]
    colours = np.take(packed.view(np.uint32)[:, 0], labels)  # whole pixels: many times faster than their channels
    return cv2.cvtColor(colours.view(np.uint8).reshape(*labels.shape, 4), cv2.COLOR_BGRA2BGR)


def overlay(
    frame: np.ndarray, labels: np.ndarray, table: np.ndarray, opacity: float = OPACITY, outline: bool = True
) -> np.ndarray:
    """The colours of `labels` laid over `frame`.

    Pixels that are ignored (255) and those of labels whose colour is black (the background of object maps) keep the
    frame as it is.

    Args:
        frame: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8.
        table: (256, 3) uint8 RGB (:func:`mmseg.visualization.palette.palette_table`).
        opacity: of the colours, 0 to 1.
        outline: draw the borders of the regions; in small pictures they are half a pixel wide.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    if outline and len(frame) < _SMALL:
        return _halved(_painted(_doubled(frame), _doubled(labels), table, opacity, outline))
    return _painted(frame, labels, table, opacity, outline)


def _painted(frame: np.ndarray, labels: np.ndarray, table: np.ndarray, opacity: float, outline: bool) -> np.ndarray:
    labels = np.ascontiguousarray(labels)
    mixed = cv2.addWeighted(frame, 1 - opacity, colourise(labels, table), opacity, 0)
    keys = _keys(labels, table)
    if outline:
        _draw_outlines(mixed, labels, keys, table)
    return cv2.copyTo(frame, cv2.compare(keys, IGNORE_INDEX, cv2.CMP_EQ), mixed)


def _doubled(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)


def _halved(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)


def _keys(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The labels, with 255 for all that show the frame: those whose colour is black."""
    keys = np.arange(256, dtype=np.uint8)
    keys[~table.any(axis=1)] = IGNORE_INDEX
    return cv2.LUT(labels, keys)


def _draw_outlines(mixed: np.ndarray, labels: np.ndarray, keys: np.ndarray, table: np.ndarray) -> None:
    """Where two classes meet a white line beside a dark one, so that it is seen on every frame; else a vivid one.

    Where a class meets pixels that show the frame, the line is on its own side and of its own colour, but as bright as
    it gets: thin objects, which are all border, keep their colour.
    """
    side = 2 * max(1, round(len(mixed) / _LINES_PER_PIXEL)) + 1
    window = np.ones((side, side), np.uint8)
    highest, lowest = cv2.dilate(keys, window), cv2.erode(keys, window)
    dark = cv2.compare(lowest, keys, cv2.CMP_LT)  # beside a class with a smaller number
    cv2.copyTo(cv2.convertScaleAbs(mixed, alpha=0.25), dark, mixed)
    white = cv2.compare(keys, highest, cv2.CMP_LT)
    cv2.bitwise_or(mixed, cv2.cvtColor(white, cv2.COLOR_GRAY2BGR), mixed)
    brightest = np.maximum(table.max(axis=1, keepdims=True), 1)
    vivid = np.rint(table * (255 / brightest)).astype(np.uint8)
    cv2.copyTo(colourise(labels, vivid), cv2.compare(highest, IGNORE_INDEX, cv2.CMP_EQ), mixed)


def side_by_side(
    frame: np.ndarray,
    maps: Sequence[np.ndarray | None],
    table: np.ndarray,
    opacity: float = OPACITY,
    outline: bool = True,
    gap: int = 0,
) -> np.ndarray:
    """The frame, and to the right of it the frame under each label map: frame | prediction | truth.

    Args:
        frame: (H, W, 3) uint8 BGR.
        maps: (H, W) uint8 each; where one is None the frame itself is shown.
        table, opacity, outline: see :func:`overlay`.
        gap: white pixels between the pictures.

    Returns:
        (H, (1 + len(maps)) * W + len(maps) * gap, 3) uint8 BGR.
    """
    pictures = [frame]
    for labels in maps:
        if gap:
            pictures.append(np.full((frame.shape[0], gap, 3), 255, np.uint8))
        pictures.append(frame if labels is None else overlay(frame, labels, table, opacity, outline))
    return np.concatenate(pictures, axis=1)
