"""S, E, F and MAE of one saliency map: all from one histogram per quarter of the image.

S: Fan et al., "Structure-measure", ICCV 2017. E: Fan et al., "Enhanced-alignment measure", IJCAI 2018. F: Achanta et
al., CVPR 2009, with beta^2 = 0.3. A map has 256 grey levels, so that every sum over pixels is one over 256 counts.

Two toolkits are in use, and differ: pysodmetrics (Python), and the VSOD toolbox (Matlab) that papers on video name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mmseg.evaluation.histogram import FLOAT32_EXACT

BETA2 = 0.3
ALPHA = 0.5  # weight of the object's part of S
EPS = float(np.spacing(1))
TRUTH_THRESHOLD = 128
TOOLKITS = ("pysodmetrics", "vsod")


@dataclass(frozen=True)
class SaliencyScores:
    """The measures of one frame.

    Attributes:
        S, MAE: structure measure, mean absolute error.
        adpF, adpE: F and E of the map cut at twice its mean.
        F, E: (256,) for thresholds from the highest to 0.
    """

    S: float
    MAE: float
    adpF: float
    adpE: float
    F: np.ndarray
    E: np.ndarray


def saliency_scores(
    pred: np.ndarray, target: np.ndarray, toolkit: str = "pysodmetrics", empty_blocks: bool = False
) -> SaliencyScores:
    """S, E, F and MAE of a grey map.

    The map is divided by 255 and stretched to 0..1, unless it is constant.

    Args:
        pred: (H, W) uint8 grey map.
        target: (H, W) bool, or uint8, where more than 128 is object.
        toolkit: of :data:`TOOLKITS`. "vsod" rounds the centroid half up, compares with thresholds 1, 254/255 ...
            instead of grey levels, and selects ``>`` for E; its adaptive threshold has no upper limit there.
        empty_blocks: where the object's centroid lies in the last row or column, S is nan, as in both toolkits.
            Without, the empty quarters are left out.
    """
    truth = target if target.dtype == bool else target > TRUTH_THRESHOLD
    matlab = toolkit == "vsod"
    row, column = _centroid(truth, half_up=matlab)
    counts = _block_counts(pred, truth, row, column)  # (4, 2, 256): quarter, truth, grey level
    whole = counts.sum(axis=0)
    grey = _grey_table(whole.sum(axis=0))
    total, inside = int(whole.sum()), int(whole[1].sum())
    mean = _mean(whole.sum(axis=0), grey)
    error = float(whole[0] @ grey + whole[1] @ (1 - grey)) / total
    if matlab:
        steps = 1 - np.arange(256) * (1 / 255)  # as a range in Matlab; compared with grey levels, its rounding decides
        at_least = whole @ (grey[:, None] >= steps)  # (2, 256): how many pixels are selected
        above = whole @ (grey[:, None] > steps)
        adaptive_e = whole @ (grey > 2 * mean)
    else:
        levels = np.floor(255 * grey)  # monotonous: the grey level k is selected by 255, 254, ... level(k)
        at_least = above = _cumulated(whole, levels)
        adaptive_e = whole @ (grey >= min(2 * mean, 1))
    adaptive_f = whole @ (grey >= min(2 * mean, 1))
    return SaliencyScores(
        S=_structure(counts, grey, truth.shape, row, column, mean, empty_blocks),
        MAE=error,
        adpF=float(_f(adaptive_f[1], adaptive_f.sum(), inside)),
        adpE=float(_e(adaptive_e[1], adaptive_e.sum(), inside, total)),
        F=_f(at_least[1], at_least.sum(axis=0), inside),
        E=_e(above[1], above.sum(axis=0), inside, total),
    )


def _centroid(truth: np.ndarray, half_up: bool) -> tuple[int, int]:
    """Row and column at which the image is cut into quarters: behind the mean position of the object."""
    place = []
    for axis in (1, 0):
        per_line = np.count_nonzero(truth, axis=axis)
        number = per_line.sum()
        position = float(per_line @ np.arange(len(per_line)) / number) if number else 0.0
        place.append((math.floor(position + 0.5) if half_up else round(position)) + 1)
    return place[0], place[1]


def _block_counts(pred: np.ndarray, truth: np.ndarray, row: int, column: int) -> np.ndarray:
    """Pixels by quarter (upper left, upper right, lower left, lower right), truth and grey level: (4, 2, 256) int64."""
    counts = np.zeros((4, 2, 256), np.int64)
    shade = truth.view(np.uint8)
    blocks = [(a, b) for a in (slice(None, row), slice(row, None)) for b in (slice(None, column), slice(column, None))]
    for block, place in enumerate(blocks):
        p, g = pred[place], shade[place]
        if p.size == 0:
            continue
        if p.size < FLOAT32_EXACT:
            table = cv2.calcHist([g, p], [0, 1], None, [2, 256], [0, 2, 0, 256])
        else:
            table = np.bincount((g.astype(np.uint16) * 256 + p).reshape(-1), minlength=512).reshape(2, 256)
        counts[block] = table
    return counts


def _grey_table(histogram: np.ndarray) -> np.ndarray:
    """What becomes of every grey level, (256,) float64, by the operations that make it of a map."""
    present = np.flatnonzero(histogram)
    grey = np.arange(256) / 255
    low, high = grey[present[0]], grey[present[-1]]
    return grey if low == high else np.clip((grey - low) / (high - low), 0, 1)


def _mean(histogram: np.ndarray, grey: np.ndarray) -> float:
    """Mean grey of a histogram, exact if there is one grey only; nan without pixels."""
    number = histogram.sum()
    if not number:
        return float("nan")
    base = grey[histogram.argmax()]
    return float(base + histogram @ (grey - base) / number)


def _spread(histogram: np.ndarray, grey: np.ndarray, mean: float) -> float:
    """Sum of the squared distances from the mean."""
    return float(histogram @ (grey - mean) ** 2)


def _structure(
    counts: np.ndarray, grey: np.ndarray, shape: tuple[int, int], row: int, column: int, mean: float, empty: bool
) -> float:
    """S of the counts of :func:`_block_counts`."""
    whole = counts.sum(axis=0)
    total, inside = whole.sum(), whole[1].sum()
    if inside == 0:
        return 1 - mean
    if inside == total:
        return mean
    share = float(inside / total)
    similar = share * _object(whole[1], grey) + (1 - share) * _object(whole[0][::-1], (1 - grey)[::-1])
    score = ALPHA * similar + (1 - ALPHA) * _regions(counts, grey, shape, row, column, empty)
    return 0.0 if score < 0 else score  # nan stays


def _object(histogram: np.ndarray, grey: np.ndarray) -> float:
    """How near to 1 and even the greys of a histogram are."""
    number = int(histogram.sum())
    mean = _mean(histogram, grey)
    deviation = math.sqrt(_spread(histogram, grey, mean) / (number - 1)) if number > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + deviation + EPS)


def _regions(counts: np.ndarray, grey: np.ndarray, shape: tuple[int, int], row: int, column: int, empty: bool) -> float:
    """The structural similarity of the four quarters, weighted by their areas."""
    height, width = shape
    area = height * width
    weights = [row * column / area, row * (width - column) / area, (height - row) * column / area]
    weights.append(1 - sum(weights))
    result = 0.0
    for weight, quarter in zip(weights, counts):
        if quarter.any():
            result += weight * _similarity(quarter, grey)
        elif empty:
            return float("nan")
    return result


def _similarity(quarter: np.ndarray, grey: np.ndarray) -> float:
    """Structural similarity of map and truth in one quarter, (2, 256) counts."""
    both = quarter.sum(axis=0)
    number, inside = int(both.sum()), int(quarter[1].sum())
    x, y = _mean(both, grey), inside / number
    of = number - 1 + EPS
    var_x = _spread(both, grey, x) / of
    var_y = (inside * (1 - y) ** 2 + (number - inside) * y**2) / of
    covariance = float(quarter[1] @ (grey - x) * (1 - y) - quarter[0] @ (grey - x) * y) / of
    above, below = 4 * x * y * covariance, (x * x + y * y) * (var_x + var_y)
    if above != 0:
        return above / (below + EPS)
    return 1.0 if below == 0 else 0.0


def _cumulated(whole: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Pixels whose level is at least 255, 254, ... 0, by truth: (2, 256)."""
    by_level = np.stack([np.bincount(levels.astype(np.intp), weights=counts, minlength=256) for counts in whole])
    return np.cumsum(by_level[:, ::-1], axis=1)


def _f(hits: np.ndarray, selected: np.ndarray, inside: int) -> np.ndarray:
    """F of selections: pixels of the object in them, all pixels in them, pixels of the object."""
    precision, recall = hits / np.maximum(selected, 1), hits / max(inside, 1)
    return (1 + BETA2) * precision * recall / np.where(hits == 0, 1, BETA2 * precision + recall)


def _e(hits: np.ndarray, selected: np.ndarray, inside: int, total: int) -> np.ndarray:
    """E of selections; `total` is the number of pixels of the image."""
    of = total - 1 + EPS
    if inside == 0:
        return (total - selected) / of
    if inside == total:
        return selected / of
    mean_s, mean_g = selected / total, inside / total
    result = 0.0
    for s, g, number in (
        (1, 1, hits),
        (1, 0, selected - hits),
        (0, 1, inside - hits),
        (0, 0, total - selected - inside + hits),
    ):
        a, b = s - mean_s, g - mean_g
        phi = 2 * a * b / (a * a + b * b + EPS)
        result = result + (phi + 1) ** 2 / 4 * number
    return result / of
