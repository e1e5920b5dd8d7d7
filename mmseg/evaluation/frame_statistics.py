"""Mean, recall and decay of the scores of an object over the frames of its video."""

from __future__ import annotations

import numpy as np

RECALL_THRESHOLD = 0.5


def frame_statistics(values: np.ndarray, nan_is_miss: bool = False) -> dict[str, float]:
    """Mean, recall and decay of a list of per-frame scores.

    Recall is the share of frames that score more than 0.5. Decay is the mean of the first quarter of the frames minus
    that of the last, neighbouring quarters sharing a frame. The published toolkits keep the ends of the quarters in
    8 bits, so that their decay is wrong from 257 frames on; here it is not.

    Args:
        values: (n,) float; nan for frames that do not count.
        nan_is_miss: count nan as below 0.5 in the recall, as the toolkits do.

    Returns:
        ``mean``, ``recall``, ``decay``; nan where there is nothing to average.
    """
    values = np.asarray(values, dtype=np.float64)
    counted = ~np.isnan(values)
    of = len(values) if nan_is_miss else np.count_nonzero(counted)
    hits = np.count_nonzero(values > RECALL_THRESHOLD)
    ends = quarter_ends(len(values))
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return {"mean": _mean(values), "recall": hits / of if of else float("nan"), "decay": _mean(first) - _mean(last)}


def quarter_ends(number: int) -> np.ndarray:
    """Positions that cut `number` frames into quarters: (5,) integers; a quarter holds both of its ends."""
    if number == 0:
        return np.zeros(5, np.int64)
    return (np.round(np.linspace(1, number, 5) + 1e-10) - 1).astype(np.int64)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
