"""Joint counts of two label maps: how many pixels have truth a and prediction b, for all (a, b) at once."""

from __future__ import annotations

import cv2
import numpy as np

FLOAT32_EXACT = 2**24
"""calcHist counts in float32, which holds every integer below this."""


def joint_counts(target: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs (truth, prediction) of one frame.

    Label maps are made of areas: most pixels have the label pair of their left neighbour. So the flattened maps
    are cut into runs of equal pairs, and each run is counted at once. On noisy maps (more than one run in ten
    pixels) a 256 x 256 histogram is cheaper; frames too large for its float32 counts are counted in int64.

    Args:
        target, pred: (H, W) uint8, contiguous, same size.

    Returns:
        ``(codes, counts)``, both (n,) int64: code = 256 * truth + prediction; a code may come several times.
    """
    truth, guess = target.reshape(-1), pred.reshape(-1)
    changes = (truth[1:] != truth[:-1]) | (guess[1:] != guess[:-1])
    if 10 * np.count_nonzero(changes) <= truth.size:
        last = np.append(np.flatnonzero(changes), truth.size - 1)  # last pixel of each run
        codes = truth[last].astype(np.int64) * 256 + guess[last]
        return codes, np.diff(last, prepend=-1)
    return _histogram(target, pred)


def _histogram(target: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts of :func:`joint_counts` without looking at runs; each code comes once."""
    if target.size < FLOAT32_EXACT:
        table = cv2.calcHist([target, pred], [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64).reshape(-1)
    else:
        table = np.bincount(target.reshape(-1).astype(np.uint16) * 256 + pred.reshape(-1), minlength=65536)
    codes = np.flatnonzero(table)
    return codes, table[codes]
