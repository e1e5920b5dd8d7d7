"""From the values or colours stored in masks to the labels that a network is trained with and scored by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from mmseg.errors import ConfigError, DataError
from mmseg.images import read_colours, read_mask

IGNORED = 255

Colour = tuple[int, int, int]


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
    if mask.dtype == np.uint8 and mask.max(initial=0) < IGNORED:
        return mask - np.uint8(1)  # 0 becomes 255
    return cv2.LUT(mask, _reduction_table())


@dataclass(frozen=True)
class LabelReader:
    """How the masks of a data set are read.

    Args:
        num_classes: K; None: object ids, of which any will do.
        reduced: whether stored values are one higher than network labels, 0 being ignored.
        ignored: stored values that are ignored, besides 255 and, if `reduced`, 0; or colours that are.
        colours: RGB colours of the classes in label order, where masks are pictures in these; `reduced` means nothing
            then.
        ignored_label: what ignored pixels become: 255, or the background in masks of objects that are followed.

    Raises:
        ConfigError: an ignored value that is of the wrong kind, or two classes of one colour.
    """

    num_classes: int | None
    reduced: bool = True
    ignored: tuple[int | Colour, ...] = ()
    colours: tuple[Colour, ...] | None = None
    ignored_label: int = IGNORED

    def __post_init__(self) -> None:
        wrong = [value for value in self.ignored if isinstance(value, int) is (self.colours is not None)]
        if wrong:
            raise ConfigError(
                f"ignored_values with {wrong[0]!r}, colour_masks={self.colours is not None}",
                "RGB colours where masks hold colours, else values",
                "set colour_masks, or correct ignored_values",
            )
        listed = [*(self.colours or ()), *(self.ignored if self.colours else ())]
        twice = [colour for colour in listed if listed.count(colour) > 1]
        if twice:
            raise ConfigError(
                f"colour {list(twice[0])} stands for two classes, or for a class and ignored pixels",
                "a colour of its own for each class",
                "correct the palette or ignored_values",
            )

    @classmethod
    def of(
        cls,
        num_classes: int | None,
        reduced: bool,
        ignored: Sequence[int | Sequence[int]],
        palette: Sequence[Sequence[int]] | None,
        colour_masks: bool,
        ignored_label: int = IGNORED,
    ) -> LabelReader:
        """The reader of a data set, from its arguments. Raises ConfigError, see above, or if there are no colours."""
        if colour_masks and palette is None:
            raise ConfigError(
                "colour_masks=True without a palette",
                "the RGB colours of the classes in label order",
                "give palette=[[r, g, b], ...], or write classes.json as {name: [r, g, b], ...}",
            )
        values = tuple(value if isinstance(value, int) else tuple(value) for value in ignored)
        return cls(num_classes, reduced, values, tuple(map(tuple, palette)) if colour_masks else None, ignored_label)

    def read(self, path: str | Path) -> np.ndarray:
        """The network labels of a mask file, (H, W) uint8 with 255 for ignored pixels.

        Raises:
            DataError: the mask is missing, damaged, or holds values, or colours, that are no class.
        """
        if self.colours is not None:
            return self._of_colours(read_colours(path), path)
        mask = read_mask(path)
        labels = cv2.LUT(mask, self._table) if self.ignored else reduce_labels(mask) if self.reduced else mask
        check_labels(labels, self.num_classes, path, self.reduced)
        return labels

    def meaning(self) -> dict[str, object]:
        """What masks mean to it, by the arguments of a data set."""
        ignored = [value if isinstance(value, int) else list(value) for value in self.ignored]
        return dict(
            reduce_zero_label=self.reduced,
            ignored_values=sorted(ignored),
            colour_masks=self.colours is not None,
            palette=self.colours and list(map(list, self.colours)),
        )

    @cached_property
    def _table(self) -> np.ndarray:
        """The label of every stored value, (256,) uint8."""
        table = _reduction_table().copy() if self.reduced else np.arange(256, dtype=np.uint8)
        table[list(self.ignored)] = self.ignored_label
        return table

    @cached_property
    def _codes(self) -> tuple[np.ndarray, np.ndarray]:
        """The colours as numbers in ascending order, int32, and their labels, uint8."""
        labels = [*range(len(self.colours)), *[self.ignored_label] * len(self.ignored)]
        return sorted_codes([*self.colours, *self.ignored], labels)

    def _of_colours(self, picture: np.ndarray, path: str | Path) -> np.ndarray:
        labels, unknown = look_up(picture, *self._codes)
        if unknown is not None:
            raise DataError(
                f"{path}: colour {picture[unknown][0].tolist()} (RGB) in {unknown.sum()} pixels",
                f"the {len(self.colours)} colours of the palette"
                + (f", and {len(self.ignored)} for ignored pixels" if self.ignored else ""),
                "add it to the palette (with a class), or to ignored_values",
            )
        return labels

    def nothing_labelled(self, where: str, sample: Sequence[str]) -> DataError:
        """The error for masks without a labelled pixel, see :func:`count_labels`."""
        found = f"no labelled pixel in {where}"
        if self.colours is not None:
            return DataError(found, "masks that show classes", "label something, or correct ignored_values")
        values = sorted({int(value) for path in sample for value in np.unique(read_mask(path))})
        given = f" and ignored_values={list(self.ignored)}" if self.ignored else ""
        return DataError(
            f"{found}: they hold the values {values}, and with reduce_zero_label={self.reduced}{given} these are all "
            "ignored",
            "0 and 255 for ignored pixels, v for class v - 1" if self.reduced else "255 for ignored, v for class v",
            "set reduce_zero_label=False in the data sets if the classes are counted from 0; objects of value 255 have "
            "to be written as a class (tools/convert_to_vspw.py)"
            if self.reduced
            else "set reduce_zero_label=True in the data sets if the classes are counted from 1; label something",
        )


def sorted_codes(colours: Sequence[Sequence[int]], labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`look_up` takes: RGB colours as numbers in ascending order, int32, and the labels in that order."""
    codes = np.array([(r << 16) + (g << 8) + b for r, g, b in colours], np.int32)
    order = np.argsort(codes)
    return codes[order], np.array(labels, np.uint8)[order]


def look_up(picture: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The labels of the colours of a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        codes, labels: of the colours, see :func:`sorted_codes`.

    Returns:
        (H, W) uint8, and (H, W) bool, where a colour is unknown; None if all are known.
    """
    wide = picture.astype(np.int32)
    found = (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]
    places = np.minimum(np.searchsorted(codes, found), len(codes) - 1)
    unknown = codes[places] != found
    return labels[places], unknown if unknown.any() else None


def check_labels(labels: np.ndarray, num_classes: int | None, path: str | Path, reduced: bool = True) -> None:
    """Raise DataError if `labels` holds a value that is neither a class nor 255.

    Args:
        labels: (H, W) uint8 network labels.
        num_classes: K; valid labels are 0..K-1. None: object ids, of which any will do.
        path: file they came from.
        reduced: whether raw labels are one higher, for the message.
    """
    if num_classes is None or (labels.dtype == np.uint8 and (labels + np.uint8(1)).max(initial=0) <= num_classes):
        return  # 255 + 1 is 0
    wrong = labels[(labels >= num_classes) & (labels != 255)]
    if wrong.size:
        shift = int(reduced)
        raise DataError(
            f"{path}: label value {int(wrong[0]) + shift} in {wrong.size} pixels",
            f"values {shift}..{num_classes - 1 + shift} for the {num_classes} classes"
            + (", 0 and 255 for ignored pixels" if reduced else ", 255 for ignored pixels"),
            "fix the mask, or give the data set its class names (key `classes`, or classes.json in data_root); list "
            "values that are to be ignored in ignored_values",
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
