"""What the values of masks of one object mean: 0 and 1, 0 and 255, or ids of objects that count as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mmseg.datasets.labels import IGNORED, LabelReader, count_labels, no_object, spread
from mmseg.errors import DataError
from mmseg.images import read_mask

logger = logging.getLogger("mmseg.datasets")

MaskValues = Literal["auto", "labels", "objects"]
_LOOKED_AT = 20  # masks that tell what the values of all of them mean
_MOST_OBJECTS = 64  # a mask of more different values is a soft map


class MaskReader:
    """Reads masks as labels: 0 background, 1 object, 255 ignored.

    Args:
        mask_values: ``'labels'``: 0 and 1, and 255 for ignored pixels; ``'objects'``: everything that is not 0 is the
            object; ``'auto'``: 'labels', unless a sample of the masks holds nothing but 0 and 255, which are then
            background and object.
        paths: of all masks, from which the sample is taken.
        ignored: values that are ignored, whatever the others mean.
        colours: reads masks that hold the colours of background and object.
    """

    def __init__(
        self,
        mask_values: MaskValues,
        paths: Sequence[str],
        ignored: Sequence[int] = (),
        colours: LabelReader | None = None,
    ) -> None:
        self.mask_values, self._paths, self._colours = mask_values, paths, colours
        self._ignored = np.isin(np.arange(256), list(ignored)).astype(np.uint8) if ignored else None
        self._kind: str | None = None if mask_values == "auto" else mask_values

    def read(self, path: str | Path) -> np.ndarray:
        """The labels (H, W) uint8 of a mask. Raises DataError if it cannot be read or holds other values."""
        if self._colours is not None:
            return self._colours.read(path)
        mask, void = self._read(path)
        kind = self._kind = self._kind or self._guess()
        labels = self._labels(mask, kind, path)
        if void is not None:
            labels = np.where(void, np.uint8(IGNORED), labels)
        return labels

    def _read(self, path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of a mask, 0 where they are ignored, and where that is, (H, W) both."""
        mask = read_mask(path)
        if self._ignored is None:
            return mask, None
        void = cv2.LUT(mask, self._ignored).astype(bool)
        return np.where(void, np.uint8(0), mask), void

    def _labels(self, mask: np.ndarray, kind: str, path: str | Path) -> np.ndarray:
        values = set(np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256])).tolist())
        if kind == "objects":
            if len(values) > _MOST_OBJECTS:
                raise DataError(
                    f"{path}: a mask of {len(values)} different values",
                    "ids of objects, or 0 and 255",
                    "threshold soft maps, and store masks without loss",
                )
            return (mask > 0).astype(np.uint8)
        allowed = {"labels": {0, 1, IGNORED}, "0 and 255": {0, 255}}[kind]
        if not values <= allowed:
            raise _unexpected(path, values, kind)
        return mask if kind == "labels" else (mask > 0).astype(np.uint8)

    def counts(self, paths: Sequence[str], masks: int) -> np.ndarray:
        """Pixels of each label, (256,) int64, in a sample of the masks. Raises DataError if none has an object."""
        return count_labels(paths, self.read, no_object, masks, background=0)

    def _guess(self) -> str:
        """What the values mean, from a sample."""
        seen: set[int] = set()
        sample = spread(self._paths, _LOOKED_AT)
        for path in sample:
            values = set(np.unique(self._read(path)[0]).tolist())
            if not values <= {0, 1, IGNORED}:
                raise _unexpected(path, values, "0 and 1, or 0 and 255")
            seen |= values
        if 1 in seen or 255 not in seen:
            return "labels"
        logger.warning(
            "%d masks looked at hold 0 and 255 (%s): 255 is taken for the object. mask_values='labels' in the data set "
            "would ignore it",
            *(len(sample), sample[0]),
        )
        return "0 and 255"


def _unexpected(path: str | Path, values: set[int], kind: str) -> DataError:
    wrong = sorted(values - {0, 1, 255}) or sorted(values)
    return DataError(
        f"{path}: values {wrong[:5]} in a mask",
        "0 and 1 (255 for ignored pixels), as in the packaged data" if kind == "labels" else kind,
        "where every value but 0 is a part of the object, as in masks of several objects, set mask_values='objects' in "
        "the data set; masks of both kinds in one data set have to be converted",
    )
