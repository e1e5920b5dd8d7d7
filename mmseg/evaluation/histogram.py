"""Joint counts of two label maps: how many pixels have truth a and prediction b, for all (a, b) at once."""

from __future__ import annotations

import cv2
import numpy as np

FLOAT32_EXACT = 2**24
"""calcHist counts in float32, which holds every integer below this."""


def joint_counts(target: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs (truth, prediction) of one frame.

    Label maps are made of areas: most pixels have the label pair of their left neighbour. So the flattened maps
    are cut into runs of equal pairs, and each run is counted at once. On noisy maps a 256 x 256 histogram is
    cheaper; frames too large for its float32 counts are counted in int64.

    Args:
        target, pred: (H, W) uint8, contiguous, same size.

    Returns:
        ``(codes, counts)``, both (n,) int64: code = 256 * truth + prediction; a code may come several times.
    """
    truth, guess = target.reshape(-1), pred.reshape(-1)
    last = _ends_of_runs(truth, guess)
    if last is None:
        return _histogram(target, pred)
    codes = truth[last].astype(np.int64) * 256 + guess[last]
    return codes, np.diff(last, prepend=-1)


def _ends_of_runs(truth: np.ndarray, guess: np.ndarray) -> np.ndarray | None:
    """Positions of the last pixels of runs of equal pairs in two flat maps; None if there are too many to be worth it.

    Eight pixels are looked at as one word first, which skips the insides of areas and finds scattered ends twice
    as fast as one search over all pixels.
    """
    size = truth.size
    ends = np.zeros(-(-size // 8) * 8, dtype=bool)
    inner = ends[: size - 1]
    np.not_equal(truth[1:], truth[:-1], out=inner)
    inner |= guess[1:] != guess[:-1]
    ends[size - 1] = True
    words = ends.view(np.uint64)
    occupied = words != 0
    if 2 * np.count_nonzero(occupied) > words.size + 1:
        return None
    hits = np.flatnonzero(occupied)
    bits = np.flatnonzero(words[hits].view(bool))  # 8 * (which of the hits) + (which of its pixels)
    return 8 * hits[bits >> 3] + (bits & 7)


def _histogram(target: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts of :func:`joint_counts` without looking at runs; each code comes once."""
    if target.size < FLOAT32_EXACT:
        table = cv2.calcHist([target, pred], [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64).reshape(-1)
    else:
        table = np.bincount(target.reshape(-1).astype(np.uint16) * 256 + pred.reshape(-1), minlength=65536)
    codes = np.flatnonzero(table)
    return codes, table[codes]
