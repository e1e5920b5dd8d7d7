"""J, F and the DAVIS-2017 evaluation, formula by formula: slow, and what the fast ones are held against.

Written as the public toolkit computes: whole videos in memory, one array per object, a dilation by a disk per frame.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: differs from the right, lower or lower right neighbour, the last row and column being repeated."""
    mask = mask.astype(bool)
    east, south, south_east = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    east[:, :-1] = mask[:, 1:]
    south[:-1, :] = mask[1:, :]
    south_east[:-1, :-1] = mask[1:, 1:]
    found = mask ^ east | mask ^ south | mask ^ south_east
    found[-1, :] = mask[-1, :] ^ east[-1, :]
    found[:, -1] = mask[:, -1] ^ south[:, -1]
    found[-1, -1] = False
    return found


def counts(pred: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> tuple[int, int, int, int]:
    """Boundary pixels of the prediction, those near the truth's boundary, those of the truth, near the prediction's."""
    keep = np.ones(truth.shape, bool) if void is None else np.logical_not(void)
    radius = int(np.ceil(0.008 * np.linalg.norm(truth.shape)))
    p, g = boundary_map(pred * keep), boundary_map(truth * keep)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (y * y + x * x <= radius * radius).astype(np.uint8)
    near_p, near_g = cv2.dilate(p.astype(np.uint8), disk), cv2.dilate(g.astype(np.uint8), disk)
    return int(np.sum(p)), int(np.sum(p * near_g)), int(np.sum(g)), int(np.sum(g * near_p))


def boundary_measure(pred: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """F of one object in one frame, both (H, W)."""
    n_pred, m_pred, n_truth, m_truth = counts(pred, truth, void)
    if n_pred == 0 and n_truth > 0:
        precision, recall = 1, 0
    elif n_pred > 0 and n_truth == 0:
        precision, recall = 0, 1
    elif n_pred == 0 and n_truth == 0:
        precision, recall = 1, 1
    else:
        precision, recall = m_pred / float(n_pred), m_truth / float(n_truth)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def region_similarity(truth: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """J over the last two axes."""
    truth, pred = truth.astype(bool), pred.astype(bool)
    keep = np.logical_not(np.zeros_like(truth) if void is None else void)
    both = np.sum((pred & truth) & keep, axis=(-2, -1))
    either = np.sum((pred | truth) & keep, axis=(-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def boundary_measures(truth: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """F of every frame of (T, H, W)."""
    voids = [None] * len(truth) if void is None else void
    return np.array([boundary_measure(p, g, v) for p, g, v in zip(pred, truth, voids)])


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall and decay, for at most 255 values."""
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10) - 1
    ends = ends.astype(np.uint8)
    quarters = [values[ends[k] : ends[k + 1] + 1] for k in range(4)]
    return np.nanmean(values), np.nanmean(values > 0.5), np.nanmean(quarters[0]) - np.nanmean(quarters[3])


def _read(folder: Path, names: list[str]) -> np.ndarray:
    """(T, H, W) float64, as the toolkit keeps labels."""
    first = np.array(Image.open(folder / names[0]))
    labels = np.zeros((len(names), *first.shape))
    for t, name in enumerate(names):
        labels[t] = np.array(Image.open(folder / name))
    return labels


def _one_map_per_object(labels: np.ndarray, number: int) -> np.ndarray:
    """(T, H, W) labels as (number, T, H, W): object i is where the label is i."""
    ids = np.ones((number, *labels.shape)) * np.arange(1, number + 1)[:, None, None, None]
    return (ids == labels[None, ...]) > 0


def evaluate_folder(predictions: Path, truth: Path, task: str = "semi-supervised") -> dict[str, object]:
    """The whole DAVIS-2017 evaluation of ``<video>/<frame>.png`` folders.

    Returns:
        ``J``, ``F``: video -> (objects, frames); ``global``: J&F-Mean, J-Mean ... over all objects.
    """
    similarity, boundary = {}, {}
    for folder in sorted(path for path in truth.iterdir() if path.is_dir()):
        names = sorted(path.name for path in folder.glob("*.png"))
        g = _read(folder, names)
        void = g == 255
        g[void] = 0
        objects = int(np.max(g[0]))
        g = _one_map_per_object(g, objects)
        if task == "semi-supervised":
            names, g, void = names[1:-1], g[:, 1:-1], void[1:-1]
        p = _read(predictions / folder.name, names)
        p = _one_map_per_object(p, max(int(p.max()), objects))
        if task == "semi-supervised":
            similarity[folder.name] = np.stack([region_similarity(g[i], p[i]) for i in range(objects)])
            boundary[folder.name] = np.stack([boundary_measures(g[i], p[i]) for i in range(objects)])
        else:
            pairs_j = np.stack([[region_similarity(g[i], q, void) for i in range(objects)] for q in p])
            pairs_f = np.stack([[boundary_measures(g[i], q, void) for i in range(objects)] for q in p])
            rows, columns = linear_sum_assignment(-(pairs_j.mean(-1) + pairs_f.mean(-1)) / 2)
            similarity[folder.name], boundary[folder.name] = pairs_j[rows, columns], pairs_f[rows, columns]
    j = np.array([statistics(row) for rows in similarity.values() for row in rows]).mean(axis=0)
    f = np.array([statistics(row) for rows in boundary.values() for row in rows]).mean(axis=0)
    names = ("J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
    return {
        "J": similarity,
        "F": boundary,
        "global": {"J&F-Mean": (j[0] + f[0]) / 2, **dict(zip(names, map(float, (*j, *f))))},
    }
