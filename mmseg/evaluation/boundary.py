"""Boundaries of masks, and how many of their pixels lie near another boundary: the counts behind the measure F.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, section 4.
All toolkits in use share the rules that stand here; the counts are exact.

A mask is kept as rows of 64-bit words, bit k of word j being column 64 j + k, and only the part of the image in which
it lies. Shifting the flat array of words shifts the whole mask, so that a boundary costs ten operations on words, and a
dilation by a disk about eight for each width that its rows have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np

from mmseg.evaluation import bits

BOUND_TH = 0.008
"""Tolerance as a share of the image diagonal."""


def tolerance(height: int, width: int, bound_th: float = BOUND_TH) -> int:
    """Pixels by which two boundaries may lie apart: `bound_th` of the image diagonal, rounded up.

    Args:
        height, width: of the masks.
        bound_th: a share of the diagonal; from 1 on, pixels.
    """
    return math.ceil(bound_th if bound_th >= 1 else bound_th * math.sqrt(height * height + width * width))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """The boundary of a mask: pixels that differ from their right, lower or lower right neighbour.

    The image is continued by its last row and column, so that an object has no boundary along the image's border.

    Args:
        mask: (H, W), not 0 inside.

    Returns:
        (H, W) bool.
    """
    mask = np.asarray(mask) != 0
    shape = PackedMask(mask, tolerance(*mask.shape))
    return shape.unpack(shape.boundary, mask.shape)


def boundary_counts(pred: np.ndarray, target: np.ndarray, bound_th: float = BOUND_TH) -> tuple[int, int, int, int]:
    """Boundary pixels of two masks, and how many of each lie within the tolerance of the other boundary.

    Args:
        pred, target: (H, W), not 0 inside.
        bound_th: see :func:`tolerance`.

    Returns:
        pixels of the prediction's boundary, those of them that match, pixels of the truth's, those that match.
    """
    radius = tolerance(*target.shape, bound_th)
    p, g = PackedMask(np.asarray(pred) != 0, radius), PackedMask(np.asarray(target) != 0, radius)
    return matched(p, g)


def matched(pred: PackedMask, target: PackedMask) -> tuple[int, int, int, int]:
    """The counts of :func:`boundary_counts` for two masks that were packed with the same radius."""
    n_pred, n_target = pred.boundary_pixels, target.boundary_pixels
    if not (n_pred and n_target):
        return n_pred, 0, n_target, 0
    return (
        n_pred,
        pred.common(pred.boundary, target, target.near),
        n_target,
        target.common(target.boundary, pred, pred.near),
    )


def f_measure(n_pred: int, m_pred: int, n_target: int, m_target: int) -> float:
    """F of boundary counts: 1 if there is no boundary at all, 0 if there is one in one mask only."""
    if not (n_pred and n_target):
        return float(n_pred == n_target)
    precision, recall = m_pred / n_pred, m_target / n_target
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


Box = tuple[int, int, int, int]
"""Rows and columns: first, behind the last, first, behind the last."""


def bounding_box(mask: np.ndarray) -> Box | None:
    """Where the pixels of a mask (H, W) are; None if there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return y0, y1, int(columns[0]), int(columns[-1]) + 1


class PackedMask:
    """One mask in words, cropped to its object and a margin; boundary and dilation are made when asked for.

    Args:
        mask: (H, W) bool.
        radius: of the disk, at least 1.
        box: in which all of the mask lies, not larger than needed, if that is known.

    Attributes:
        area: pixels inside.
        words: (rows, columns) uint64, no rows if the mask is empty.
        top: row of the image in which the first row of `words` lies.
        left: word column in which its first column lies; the image begins some words to the right of word column 0.
    """

    def __init__(self, mask: np.ndarray, radius: int, box: Box | None = None) -> None:
        self.radius = radius
        self._margin = 64 * -(-(radius + 1) // 64)  # columns left of the image, so that nothing is ever cut off there
        self.words = np.zeros((0, 0), np.uint64)
        self.area = self.top = self.left = 0
        # The columns before and behind the image, counted in bits of a row, if the object touches those borders.
        self._start: int | None = None
        self._end: int | None = None
        occupied = bounding_box(mask) if box is None else box
        if occupied is not None:
            self._pack(mask, *occupied)

    def _pack(self, mask: np.ndarray, y0: int, y1: int, x0: int, x1: int) -> None:
        rows, columns = mask.shape
        reach = self.radius + 1  # a boundary begins one pixel before its mask
        self.top, bottom = max(0, y0 - reach), min(rows, y1 + reach)
        self.left = (x0 - reach + self._margin) // 64
        right = -(-(x1 + reach + self._margin) // 64)  # a dilation never gets into the next row's first pixels
        first = max(64 * self.left - self._margin, 0)  # column of the image at which the copy begins
        inside = mask[y0:y1, first:x1]
        packed = np.packbits(inside, axis=1, bitorder="little")
        self.words = np.zeros((bottom - self.top, right - self.left), np.uint64)
        start = (first + self._margin) // 8 - 8 * self.left
        self.words.view(np.uint8)[y0 - self.top : y1 - self.top, start : start + packed.shape[1]] = packed
        self.area = int(np.count_nonzero(inside))
        if x0 == 0:
            self._start = self._margin - 64 * self.left - 1
        if x1 == columns:
            self._end = self._margin - 64 * self.left + columns

    @cached_property
    def boundary(self) -> np.ndarray:
        """The words of the boundary, like `words`."""
        if not self.area:
            return self.words
        here = self.words
        if self._end is not None:  # repeat the last column of the image behind it
            word, bit = divmod(self._end - 1, 64)
            beyond, place = divmod(self._end, 64)
            here = here.copy()
            here[:, beyond] |= (here[:, word] >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
        east = np.empty_like(here)
        _shift_down(here.reshape(-1), 1, east.reshape(-1), np.empty(here.size, np.uint64))
        found = here ^ east
        found[:-1] |= here[:-1] ^ here[1:]  # in the last row, background or the image's last, only the right counts
        found[:-1] |= here[:-1] ^ east[1:]
        for column in (self._start, self._end):  # which are outside of the image
            if column is not None:
                word, bit = divmod(column, 64)
                found[:, word] &= ~(np.uint64(1) << np.uint64(bit))
        return found

    @cached_property
    def boundary_pixels(self) -> int:
        """Number of boundary pixels."""
        return bits.count(self.boundary)

    @cached_property
    def near(self) -> np.ndarray:
        """The words of the boundary dilated by the disk; many at once are cheaper by :func:`dilate`."""
        return _dilated(self.boundary, self.radius)

    def common(self, words: np.ndarray, other: PackedMask, others: np.ndarray) -> int:
        """How many pixels are in both: `words` of this mask's window, `others` of that of `other`."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + words.shape[0], other.top + others.shape[0])
        right = min(self.left + words.shape[1], other.left + others.shape[1])
        if bottom <= top or right <= left:
            return 0
        mine = words[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return bits.count(mine & others[top - other.top : bottom - other.top, left - other.left : right - other.left])

    def unpack(self, words: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Words of this mask's window as an (H, W) bool image."""
        image = np.zeros(shape, bool)
        if words.size:
            flags = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").view(bool)
            first = 64 * self.left - self._margin  # column of the image
            skip, stop = max(0, -first), min(flags.shape[1], shape[1] - first)
            image[self.top : self.top + len(flags), first + skip : first + stop] = flags[:, skip:stop]
        return image


@cache
def _half_widths(radius: int) -> tuple[int, ...]:
    """Half the width of the disk's row at a distance of 0, 1, ... `radius` rows from its middle."""
    return tuple(math.isqrt(radius * radius - d * d) for d in range(radius + 1))


def dilate(masks: Sequence[PackedMask]) -> None:
    """Make ``near`` of several masks of one radius, in one go: what is small costs by the call, not by the bit."""
    radius = max((mask.radius for mask in masks), default=0)
    starts = np.cumsum([0, *(len(mask.words) + radius for mask in masks)])  # apart, so that none gets into the next
    words = np.zeros((starts[-1], max((mask.words.shape[1] for mask in masks), default=0)), np.uint64)
    for start, mask in zip(starts, masks):
        words[start : start + mask.words.shape[0], : mask.words.shape[1]] = mask.boundary
    words = _dilated(words, radius)
    for start, mask in zip(starts, masks):
        mask.near = words[start : start + mask.words.shape[0], : mask.words.shape[1]]


def _dilated(words: np.ndarray, radius: int) -> np.ndarray:
    """The union of disks around all pixels: rows grow step by step, and each width is or'ed where the disk has it."""
    stride = words.shape[1]
    row = words.reshape(-1).copy()  # the map, its pixels widened so far
    near = np.zeros_like(row)
    shifted, carry = np.empty_like(row), np.empty_like(row)
    width = 0
    for distance, wanted in reversed(list(enumerate(_half_widths(radius)))):
        while width < wanted:
            step = min(wanted - width, 2 * width + 1)  # leaves no gap
            width += step
            _widen(row, step, shifted, carry)
        if distance == 0:
            near |= row
        elif (offset := distance * stride) < len(row):
            near[offset:] |= row[:-offset]
            near[:-offset] |= row[offset:]
    return near.reshape(words.shape)


def _widen(row: np.ndarray, step: int, shifted: np.ndarray, carry: np.ndarray) -> None:
    """Add to `row`, in place, itself shifted by `step` columns to either side."""
    _shift_down(row, step, shifted, carry)
    np.left_shift(row, np.uint64(step), out=carry)
    shifted |= carry
    np.right_shift(row, np.uint64(64 - step), out=carry)
    shifted[1:] |= carry[:-1]
    row |= shifted


def _shift_down(words: np.ndarray, step: int, out: np.ndarray, carry: np.ndarray) -> None:
    """`out` = flat `words` with every pixel moved `step` columns (1..63) to the left."""
    np.right_shift(words, np.uint64(step), out=out)
    np.left_shift(words, np.uint64(64 - step), out=carry)
    out[:-1] |= carry[1:]
