"""From the values stored in masks to the labels that a network is trained with and scored by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mmseg.errors import DataError
from mmseg.images import read_mask

IGNORED = 255


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


def read_labels(path: str | Path, num_classes: int | None, reduced: bool) -> np.ndarray:
    """The network labels of a mask file, (H, W) uint8 with 255 for ignored pixels.

    Args:
        path: of the mask.
        num_classes: K; None: object ids, of which any will do.
        reduced: whether raw labels are one higher than network labels.

    Raises:
        DataError: the mask is missing, damaged, coloured, or holds values that are no class.
    """
    mask = read_mask(path)
    labels = reduce_labels(mask) if reduced else mask
    check_labels(labels, num_classes, path, reduced)
    return labels


def check_labels(labels: np.ndarray, num_classes: int | None, path: str | Path, reduced: bool = True) -> None:
    """Raise DataError if `labels` holds a value that is neither a class nor 255.

    Args:
        labels: (H, W) uint8 network labels.
        num_classes: K; valid labels are 0..K-1. None: object ids, of which any will do.
        path: file they came from.
        reduced: whether raw labels are one higher, for the message.
    """
    if num_classes is None:
        return
    wrong = labels[(labels >= num_classes) & (labels != 255)]
    if wrong.size:
        shift = int(reduced)
        raise DataError(
            f"{path}: label value {int(wrong[0]) + shift} in {wrong.size} pixels",
            f"values {shift}..{num_classes - 1 + shift} for the {num_classes} classes"
            + (", 0 and 255 for ignored pixels" if reduced else ", 255 for ignored pixels"),
            "fix the mask, or give the data set its class names (key `classes`, or classes.json in data_root)",
        )


def count_labels(paths: Sequence[str], num_classes: int | None, reduced: bool, masks: int = 200) -> np.ndarray:
    """How many pixels have which network label in a sample of masks, spread evenly.

    Where the sample has no labelled pixel, ten times as many masks are looked at.

    Args:
        paths: of all masks.
        num_classes, reduced: see :func:`read_labels`.
        masks: size of the sample, at most.

    Returns:
        (256,) int64; entry 255 counts ignored pixels.

    Raises:
        DataError: a mask cannot be read or holds values that are no class, or there is no labelled pixel at all.
    """
    for size in (masks, 10 * masks):
        sample = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(size, len(paths))).astype(int))]
        counts = sum(np.bincount(read_labels(path, num_classes, reduced).ravel(), minlength=256) for path in sample)
        if np.any(counts[:IGNORED]):
            return counts
    values = sorted({int(value) for path in sample for value in np.unique(read_mask(path))})
    raise DataError(
        f"no labelled pixel in {len(sample)} of {len(paths)} masks, the first is {paths[0]}: they hold the values "
        f"{values}, and with reduce_zero_label={reduced} these are all ignored",
        "0 and 255 for ignored pixels, v for class v - 1" if reduced else "255 for ignored pixels, v for class v",
        "set reduce_zero_label=False in the data sets if the classes are counted from 0; objects of value 255 have "
        "to be written as a class (tools/convert_to_vspw.py)"
        if reduced
        else "set reduce_zero_label=True in the data sets if the classes are counted from 1; label something",
    )
