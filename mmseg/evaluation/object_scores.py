"""J and F of the objects in a pair of label maps: region similarity and boundary measure, as all toolkits have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmseg.evaluation.boundary import BOUND_TH, PackedMask, boundary_counts, dilate, f_measure, matched, tolerance
from mmseg.evaluation.histogram import joint_counts

VOID = 255
"""Label of pixels that belong to no object and are not judged, where a protocol knows such pixels."""

Scores = tuple[np.ndarray, np.ndarray]  # J and F


def region_similarity(pred: np.ndarray, target: np.ndarray) -> float:
    """J, the intersection over union of two masks (H, W); 1 if both are empty."""
    pred, target = np.asarray(pred) != 0, np.asarray(target) != 0
    union = np.count_nonzero(pred | target)
    return np.count_nonzero(pred & target) / union if union else 1.0


def boundary_measure(pred: np.ndarray, target: np.ndarray, bound_th: float = BOUND_TH) -> float:
    """F, the harmonic mean of boundary precision and recall, of two masks (H, W).

    Args:
        pred, target: not 0 inside.
        bound_th: tolerance as a share of the image diagonal; from 1 on, pixels.
    """
    return f_measure(*boundary_counts(pred, target, bound_th))


class ObjectMasks:
    """Takes the masks of single objects out of label maps.

    In a buffer that is used again and again, since fresh memory costs more than all the rest, and with rows of whole
    words, in which a mask is found eight pixels at a time.
    """

    def __init__(self) -> None:
        self._words = np.zeros((0, 0), np.uint64)
        self._mask = np.zeros((0, 0), bool)
        self._radius = 0

    def __reduce__(self) -> tuple:
        return ObjectMasks, ()  # the buffer does not travel

    def object(self, labels: np.ndarray, number: int) -> PackedMask:
        """The mask of an id in labels (H, W)."""
        return self._packed(np.equal, labels, number)

    def foreground(self, labels: np.ndarray) -> PackedMask:
        """The mask of everything that is not 0 in labels (H, W)."""
        return self._packed(np.not_equal, labels, 0)

    def _packed(self, compare: np.ufunc, labels: np.ndarray, number: int) -> PackedMask:
        if self._mask.shape != labels.shape:
            height, width = labels.shape
            self._words = np.zeros((height, -(-width // 8)), np.uint64)
            self._mask = self._words.view(bool)[:, :width]
            self._radius = tolerance(height, width)
        compare(labels, np.uint8(number), out=self._mask)
        rows = np.flatnonzero(np.bitwise_or.reduce(self._words, axis=1))
        if not rows.size:
            return PackedMask(self._mask[:1, :1], self._radius)
        y0, y1 = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(np.bitwise_or.reduce(self._words[y0:y1], axis=0).view(np.uint8))
        return PackedMask(self._mask, self._radius, (y0, y1, int(columns[0]), int(columns[-1]) + 1))


def mask_scores(pred: PackedMask, target: PackedMask) -> tuple[float, float]:
    """J and F of two masks of one image."""
    return _pair_scores([(pred, target)])[0]


def _pair_scores(pairs: Sequence[tuple[PackedMask, PackedMask]]) -> list[tuple[float, float]]:
    """J and F of pairs of masks."""
    overlaps = []
    for pred, target in pairs:
        both = pred.common(pred.words, target, target.words)
        overlaps.append((both, pred.area + target.area - both))
    differ = [pair for pair, (both, union) in zip(pairs, overlaps) if both != union and all(m.area for m in pair)]
    dilate([mask for pair in differ for mask in pair])
    return [  # one and the same set of pixels: 1
        (1.0, 1.0) if both == union else (both / union, f_measure(*matched(*pair)))
        for pair, (both, union) in zip(pairs, overlaps)
    ]


def foreground_scores(pred: np.ndarray, target: np.ndarray, masks: ObjectMasks | None = None) -> tuple[float, float]:
    """J and F of all objects as one: of what is not 0. Both maps (H, W) uint8."""
    masks = masks or ObjectMasks()
    return mask_scores(masks.foreground(pred), masks.foreground(target))


def label_scores(pred: np.ndarray, target: np.ndarray, ids: Iterable[int], masks: ObjectMasks | None = None) -> Scores:
    """J and F of each id: where the prediction has the id against where the truth has it.

    Args:
        pred, target: (H, W) uint8 object ids.
        ids: of the objects.
        masks: buffers, for many frames.

    Returns:
        J and F, (len(ids),) float64 each.
    """
    masks = masks or ObjectMasks()
    pairs = [(masks.object(pred, number), masks.object(target, number)) for number in ids]
    scores = np.array(_pair_scores(pairs), dtype=np.float64).reshape(-1, 2)
    return scores[:, 0], scores[:, 1]


def proposal_scores(
    pred: np.ndarray, target: np.ndarray, num_objects: int, masks: ObjectMasks | None = None
) -> tuple[dict[int, Scores], Scores]:
    """J and F of each proposal against each object 1..K; void pixels of the truth are taken out of both before.

    Every boundary is found, and dilated, once per frame.

    Args:
        pred: (H, W) uint8, proposals are 1, 2, ...
        target: (H, W) uint8 object ids, 255 is void.
        num_objects: K.
        masks: buffers, for many frames.

    Returns:
        Proposal -> J and F (K,) for those that occur in this frame, and those of a proposal that does not.
    """
    masks = masks or ObjectMasks()
    void = target == VOID
    if void.any():
        pred = np.where(void, np.uint8(0), pred)
    codes, counts = joint_counts(target, pred)
    table = np.zeros(65536, np.int64)
    np.add.at(table, codes, counts)
    table = table.reshape(256, 256)  # truth by prediction
    table[VOID] = 0  # only the proposal 0 is left there
    objects = [masks.object(target, number) for number in range(1, num_objects + 1)]
    areas = table.sum(axis=1)[1 : num_objects + 1]
    proposals = {int(n): masks.object(pred, int(n)) for n in np.flatnonzero(table.sum(axis=0)[1:]) + 1}
    dilate([*objects, *proposals.values()])
    found = {}
    for number, proposal in proposals.items():
        both = table[1 : num_objects + 1, number]
        union = areas + table[:, number].sum() - both
        found[number] = both / union, np.array([f_measure(*matched(proposal, g)) for g in objects])
    nothing = PackedMask(np.zeros((1, 1), bool), 1)
    absent = [(float(g.area == 0), f_measure(*matched(nothing, g))) for g in objects]
    return found, tuple(np.array(absent, dtype=np.float64).reshape(-1, 2).T)
