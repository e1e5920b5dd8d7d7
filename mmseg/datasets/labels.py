"""From the values stored in masks to the labels that a network is trained with and scored by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def spread(paths: Sequence[str], size: int) -> list[str]:
    """At most `size` of the paths, spread evenly."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(size, len(paths))).astype(int))]


def count_labels(
    paths: Sequence[str],
    read: Callable[[str], np.ndarray],
    nothing: Callable[[str, Sequence[str]], DataError],
    masks: int = 200,
    background: int | None = None,
) -> np.ndarray:
    """How many pixels have which network label in a sample of masks, spread evenly.

    Where the sample has nothing to learn from, ten times as many masks are looked at.

    Args:
        paths: of all masks.
        read: gives the labels (H, W) uint8 of a mask.
        nothing: the error for masks without anything, from "K of N masks, the first is ..." and the sample.
        masks: size of the sample, at most.
        background: label of pixels without an object, from which alone nothing is learned; None: there is none.

    Returns:
        (256,) int64; entry 255 counts ignored pixels.

    Raises:
        DataError: a mask cannot be read or holds values that are no class, or `nothing`.
    """
    for size in (masks, 10 * masks):
        sample = spread(paths, size)
        counts = sum(np.bincount(read(path).ravel(), minlength=256) for path in sample)
        labelled = counts[:IGNORED].copy()
        if background is not None:
            labelled[background] = 0
        if labelled.any():
            return counts
    raise nothing(f"{len(sample)} of {len(paths)} masks, the first is {paths[0]}", sample)


def no_object(where: str, sample: Sequence[str]) -> DataError:
    """The error for masks of objects that hold none, see :func:`count_labels`."""
    return DataError(
        f"no object in {where}",
        "masks in which objects have values above 0",
        "check that these are the masks, and that they were not emptied on the way",
    )


def no_label(reduced: bool, where: str, sample: Sequence[str]) -> DataError:
    """The error for masks of classes without a labelled pixel, see :func:`count_labels`."""
    values = sorted({int(value) for path in sample for value in np.unique(read_mask(path))})
    return DataError(
        f"no labelled pixel in {where}: they hold the values {values}, and with reduce_zero_label={reduced} these are "
        "all ignored",
        "0 and 255 for ignored pixels, v for class v - 1" if reduced else "255 for ignored pixels, v for class v",
        "set reduce_zero_label=False in the data sets if the classes are counted from 0; objects of value 255 have "
        "to be written as a class (tools/convert_to_vspw.py)"
        if reduced
        else "set reduce_zero_label=True in the data sets if the classes are counted from 1; label something",
    )
