"""The evaluation script of VSPW written down as it is defined, window by window, pixel by pixel and slowly.

The oracle of the tests, and the yardstick of ``python tests/evaluation/vc_reference.py --bench``, which times it
against :class:`mmseg.evaluation.VSPWEvaluator` on one video in memory, both on one thread in one run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np


def window_scores(target: np.ndarray, pred: np.ndarray, length: int) -> list[float]:
    """|A and B| / |A| of every window that counts of one video; target, pred: (N, H, W)."""
    scores = []
    for i in range(len(target) - length):
        truth_constant = np.ones(target.shape[1:], dtype=bool)
        pred_constant = np.ones(target.shape[1:], dtype=bool)
        for j in range(i + 1, i + length):
            truth_constant = np.logical_and(truth_constant, target[j] == target[i])
            pred_constant = np.logical_and(pred_constant, pred[j] == pred[i])
        with np.errstate(invalid="ignore"):
            both = np.logical_and(truth_constant, pred_constant)
            scores.append(np.true_divide(both.sum(), truth_constant.sum()))
    return scores


class Confusion:
    """A matrix of pixel counts, added up frame by frame, and the script's scores."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes, num_classes))

    def add(self, target: np.ndarray, pred: np.ndarray) -> None:
        """Count one frame (H, W); labels outside 0..K-1 are ignored."""
        mask = (target >= 0) & (target < self.num_classes)
        index = self.num_classes * target[mask].astype(int) + pred[mask]
        counts = np.bincount(index, minlength=self.num_classes**2)
        self.matrix += counts.reshape(self.num_classes, self.num_classes)

    def scores(self) -> dict[str, float]:
        """Acc, Acc_class, mIoU, FWIoU over the classes with labelled pixels."""
        hit, truth, guess = np.diag(self.matrix), self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        present = truth > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            iou, acc, freq = hit / (truth + guess - hit), hit / truth, truth / truth.sum()
            return {
                "Acc": hit.sum() / truth.sum(),
                "Acc_class": np.nanmean(acc) if present.any() else float("nan"),
                "mIoU": iou[present].sum() / present.sum(),
                "FWIoU": (freq[present] * iou[present]).sum(),
            }


def vc_perclip(
    videos: dict[str, tuple[np.ndarray, np.ndarray]], num_classes: int, lengths: tuple[int, ...] = (16, 8)
) -> dict[str, object]:
    """The whole script: name -> (reduced labels, predictions), both (N, H, W) uint8."""
    total, windows, per_video = Confusion(num_classes), {length: [] for length in lengths}, {}
    for name, (target, pred) in videos.items():
        if len(target) <= 16:
            continue
        own = Confusion(num_classes)
        for frame in range(len(target)):
            total.add(target[frame], pred[frame])
            own.add(target[frame], pred[frame])
        for length in lengths:
            windows[length] += window_scores(target, pred, length)
        per_video[name] = own.scores()["mIoU"]
    vc = {f"VC{length}": float(np.nanmean(windows[length])) for length in lengths}
    return {**vc, **total.scores(), "per_video": per_video, "windows": windows, "confusion": total.matrix}


def moving_shapes(frames: int = 60, height: int = 480, width: int = 853, num_classes: int = 124, seed: int = 0):
    """Labels of moving discs and boxes over still areas, and predictions with shaky outlines: two (N, H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ground = rng.integers(0, num_classes, (4, 5)).astype(np.uint8)
    ground = ground[y * 4 // height, (x + y // 4) * 4 // (width + height // 4)]  # slanted areas
    shapes = [
        (rng.integers(0, num_classes), *rng.uniform(0, 1, 2) * (height, width), height * rng.uniform(0.04, 0.15),
         *rng.uniform(-3, 3, 2)) for _ in range(12)
    ]  # fmt: skip
    target, pred = np.empty((2, frames, height, width), dtype=np.uint8)
    for t in range(frames):
        for out, shake in ((target[t], 0.0), (pred[t], 1.0)):
            out[...] = ground
            for k, (label, cy, cx, radius, vy, vx) in enumerate(shapes):
                dy, dx = (y - cy - vy * t) + shake * rng.normal(), (x - cx - vx * t) + shake * rng.normal()
                out[np.maximum(abs(dy), abs(dx)) < radius if k % 3 else dy * dy + dx * dx < radius**2] = label
        target[t, : height // 20] = 255  # void at the border
        target[t, :, : width // 40] = 255
    return target, pred


def bench(repeats: int, frames: int) -> str:
    """Best of `repeats` runs of both, taken in turn, and the largest difference of their numbers."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import cv2

    from mmseg.evaluation import VSPWEvaluator

    cv2.setNumThreads(1)
    target, pred = moving_shapes(frames)
    runs = float(((np.diff(target) != 0) | (np.diff(pred) != 0)).mean())
    slow_times, fast_times, slow_cpu, fast_cpu = [], [], [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        slow = vc_perclip({"v": (target, pred)}, 124)
        slow_times.append(time.perf_counter() - start)
        slow_cpu.append(time.process_time() - cpu)
        start, cpu = time.perf_counter(), time.process_time()
        evaluator = VSPWEvaluator(124)
        for t in range(frames):
            evaluator.update("v", t, pred[t], target[t])
        fast = evaluator.compute()
        fast_times.append(time.perf_counter() - start)
        fast_cpu.append(time.process_time() - cpu)
    names = ("mIoU", "FWIoU", "Acc", "Acc_class", "VC8", "VC16")
    difference = max(abs(slow[name] - fast[name]) for name in names)
    return (
        f"{frames} frames 480x853 in memory, about {runs:.3f} runs a pixel, one thread, best of {repeats}\n"
        f"transcription {1e3 * min(slow_times):.0f} ms (CPU time {1e3 * min(slow_cpu):.0f} ms)\n"
        f"VSPWEvaluator {1e3 * min(fast_times):.1f} ms (CPU time {1e3 * min(fast_cpu):.1f} ms)\n"
        f"ratio {min(slow_times) / min(fast_times):.1f} (CPU time {min(slow_cpu) / min(fast_cpu):.1f}), "
        f"largest difference of {', '.join(names)}: {difference:.1e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", action="store_true", required=True, help="time the transcription and ours")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    print(bench(arguments.repeats, arguments.frames))
