"""Times the scores of masks against the literal formulas and pysodmetrics, on one thread, in one run.

    OMP_NUM_THREADS=1 python tests/evaluation/score_speed.py [--real DIR]

Without ``--real`` (a folder with ``predictions/osvos`` and ``Annotations/480p``), drawn objects are timed. CPU time of
the best of several runs; pysodmetrics is timed where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmseg.apis.object_evaluation import StoredMasks, evaluate_masks
from mmseg.evaluation import DAVIS17Evaluator, saliency_scores
from mmseg.evaluation.object_scores import ObjectMasks, foreground_scores
from mmseg.images import read_mask
from tests.reference import davis as literal

SIZE = (480, 854)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = real_pairs(args.real) if args.real else drawn_pairs()
    buffers = ObjectMasks()
    rows = [
        (
            "J + F of one object, ms a frame",
            lambda: [foreground_scores(p, g, buffers) for p, g in pairs],
            lambda: [
                (literal.region_similarity(g > 0, p > 0), literal.boundary_measure(p > 0, g > 0)) for p, g in pairs
            ],
            len(pairs),
        )
    ]
    grey = [(np.where(p > 0, np.uint8(255), np.uint8(0)), g > 0) for p, g in pairs]
    grey += [(cv2.GaussianBlur(p, (0, 0), 9), g) for p, g in grey]
    rows.append(
        (
            "S + E + F + MAE, ms a frame",
            lambda: [saliency_scores(p, g) for p, g in grey],
            pysodmetrics(grey),
            len(grey),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        pred, truth = write_objects(Path(folder), frames=25, objects=6)
        rows.append(
            (
                "DAVIS-2017, 6 objects x 25 frames from PNG files, ms",
                lambda: evaluate_masks(
                    StoredMasks.find(pred, truth, "davis17", None, True), DAVIS17Evaluator, progress=False
                ).compute(),
                lambda: literal.evaluate_folder(pred, truth),
                1,
            )
        )
        for name, ours, theirs, number in rows:
            fast = best(ours) / number
            slow = best(theirs, 3) / number if theirs else float("nan")
            sys.stdout.write(f"{name}: ours {fast:.2f}, reference {slow:.2f}, ratio {slow / fast:.1f}\n")


def best(call: Callable[[], object], runs: int = 6) -> float:
    """CPU milliseconds of the fastest of several calls."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return min(times)


def pysodmetrics(maps: list) -> Callable[[], object] | None:
    if importlib.util.find_spec("py_sod_metrics") is None:
        return None
    sod = importlib.import_module("py_sod_metrics")

    def run() -> None:
        for pred, truth in maps:
            measures = [sod.Smeasure(), sod.Emeasure(), sod.Fmeasure(), sod.MAE()]
            for measure in measures:
                measure.step(pred=pred, gt=truth.astype(np.uint8) * 255)

    return run


def real_pairs(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    files = sorted((folder / "predictions" / "osvos").rglob("*.png"))[7::13]
    return [(read_mask(f), read_mask(folder / "Annotations" / "480p" / f.parent.name / f.name)) for f in files]


def drawn_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(labels(t, 1, 3), labels(t, 1, 0)) for t in range(0, 40, 2)]


def labels(t: int, objects: int, shift: int) -> np.ndarray:
    """Moving ellipses with wavy outlines, (H, W) uint8 ids."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    result = np.zeros(SIZE, np.uint8)
    for k in range(1, objects + 1):
        cy, cx = 70 + 60 * (k - 1) + 2 * t, (130 * k + 7 * t + shift) % SIZE[1]
        angle = np.arctan2(y - cy, x - cx)
        radius = (170 if objects == 1 else 70) * (1 + 0.1 * np.sin(7 * angle + t / 5 + shift / 7))
        result[np.hypot(y - cy, (x - cx) / 1.3) < radius] = k
    return result


def write_objects(folder: Path, frames: int, objects: int) -> tuple[Path, Path]:
    """Folders of palette PNGs with predictions and truth of one video."""
    palette = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes()
    for kind, shift in (("pred", 3), ("truth", 0)):
        (folder / kind / "video").mkdir(parents=True)
        for t in range(frames):
            image = Image.fromarray(labels(t, objects, shift))
            image.putpalette(palette)
            image.save(folder / kind / "video" / f"{t:05d}.png")
    return folder / "pred", folder / "truth"


if __name__ == "__main__":
    main()
