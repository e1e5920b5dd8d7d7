"""One picture that shows what a model does: rows of frame, prediction and truth, with the names of the classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mmseg.visualization.legend import INK, PAPER, legend_strip, names_of_labels
from mmseg.visualization.lettering import shortened, write_texts
from mmseg.visualization.painting import overlay

MARGIN, _LINE, _SIZE = 6, 20, 12


@dataclass
class Row:
    """One row of the sheet: a title and the frame with its label maps (all of one size)."""

    title: str
    frame: np.ndarray  # (H, W, 3) uint8 BGR
    prediction: np.ndarray  # (H, W) uint8
    truth: np.ndarray | None = None  # (H, W) uint8, 255 ignored

    def shrunk(self, width: int) -> Row:
        """The row at `width` pixels per picture, so that a sheet of large frames stays a small file."""
        frame, maps = shrink(self.frame, (self.prediction, self.truth), width)
        return Row(self.title, frame, *maps)


def shrink(
    frame: np.ndarray, maps: Iterable[np.ndarray | None], width: int
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """A frame and its label maps at `width` pixels."""
    size = width, max(1, round(frame.shape[0] * width / frame.shape[1]))
    nearest = [None if x is None else cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in maps]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), nearest


def contact_sheet(
    rows: Sequence[Row],
    table: np.ndarray,
    class_names: Sequence[str] | None = None,
    width: int = 320,
) -> np.ndarray:
    """Draw the sheet.

    Args:
        rows: what to show, top to bottom.
        table: (256, 3) RGB colours (:func:`mmseg.visualization.palette.palette_table`).
        class_names: names in label order; the legend lists those that occur, the most frequent first. None: the labels
            are numbers of objects, 0 being background.
        width: width of one picture in pixels.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    columns = 3 if any(row.truth is not None for row in rows) else 2
    sheet_width = columns * (width + MARGIN) + MARGIN
    parts = [_heading(["frame", "prediction", "truth"][:columns], width, sheet_width)]
    counts = np.zeros(256, np.int64)
    for row in (row.shrunk(width) for row in rows):
        pictures = [row.frame, overlay(row.frame, row.prediction, table)]
        counts += np.bincount(row.prediction.ravel(), minlength=256)
        if row.truth is not None:
            pictures.append(overlay(row.frame, row.truth, table))
            counts += np.bincount(row.truth.ravel(), minlength=256)
        parts.append(titled_row(row.title, pictures, width, sheet_width))
    parts.append(legend_strip(most_frequent(counts, table, class_names), class_names, table, sheet_width))
    return np.concatenate(parts, axis=0)


def most_frequent(counts: np.ndarray, table: np.ndarray, class_names: Sequence[str] | None) -> list[int]:
    """The painted labels that occur, the most frequent first; `counts` (256,) are their pixels."""
    known = len(names_of_labels(class_names))
    return [int(c) for c in np.argsort(-counts[:known], kind="stable") if counts[c] and table[c].any()]


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER, np.uint8)


def _write(canvas: np.ndarray, text: str, x: int, y: int, room: int | None = None) -> None:
    write_texts(canvas, [(shortened(text, room or canvas.shape[1] - x, _SIZE), x, y, INK)], _SIZE)


def _heading(names: Sequence[str], width: int, sheet_width: int) -> np.ndarray:
    strip = _blank(_LINE + MARGIN, sheet_width)
    for column, name in enumerate(names):
        _write(strip, name, MARGIN + column * (width + MARGIN), _LINE // 2, width)
    return strip


def titled_row(titles: str | Sequence[str], pictures: Sequence[np.ndarray], width: int, sheet_width: int) -> np.ndarray:
    """Pictures of one size beside each other, `width` pixels each, under one title or one each."""
    height = pictures[0].shape[0]
    strip = _blank(_LINE + height + MARGIN, sheet_width)
    if isinstance(titles, str):
        _write(strip, titles, MARGIN, _LINE // 2)
    for column, picture in enumerate(pictures):
        left = MARGIN + column * (width + MARGIN)
        strip[_LINE : _LINE + height, left : left + width] = picture
        if not isinstance(titles, str):
            _write(strip, titles[column], left, _LINE // 2, width)
    return strip
