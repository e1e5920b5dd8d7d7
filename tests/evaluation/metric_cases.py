"""The label videos of the metric cases, and a feeder for accumulators."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from tests.golden_cases import GOLDEN, Case, fill

sys.path.insert(0, str(GOLDEN / "metrics"))

import shapes  # lies beside the cases

Videos = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (reduced labels, predictions), both (N, H, W) uint8


def reduce_labels(raw: np.ndarray) -> np.ndarray:
    """Raw VSPW values to classes: 0 and 255 are ignored, v is class v - 1."""
    return np.where((raw == 0) | (raw == 255), 255, raw - 1).astype(np.uint8)


def stored_videos(case: Case) -> Videos:
    """The videos of a case that carries its arrays, labels reduced where the case says so."""
    reduce = reduce_labels if case.config.get("reduce_zero_label") else np.asarray
    names = [k[3:] for k in case.arrays if k.startswith("gt/")]
    return {n: (reduce(case.arrays[f"gt/{n}"]), case.arrays[f"pred/{n}"]) for n in names}


def drawn_videos(case: Case, reduce: bool = True) -> Videos:
    """The videos of a case made of drawing recipes, each checked against its checksum."""
    videos = {}
    for name, recipe in case["videos"].items():
        raw, pred = shapes.video(recipe["gt"]), shapes.video(recipe["pred"])
        assert [shapes.checksum(raw), shapes.checksum(pred)] == recipe["checksum"], name
        videos[name] = (reduce_labels(raw) if reduce else raw, pred)
    return videos


def block_videos(case: Case) -> Videos:
    """The videos of ``cffm/metrics_vspw``, made as its 'how' tells."""
    raw_table, p_table, q_table = (np.array(case["inputs"][k]) for k in ("raw_table", "p_table", "q_table"))
    videos = {}
    for spec in case["inputs"]["videos"]:
        name, n, size = spec["name"], spec["frames"], (spec["height"], spec["width"])

        def blocks(key: str, frames: int, high: int, cell: int, name: str = name, size: tuple = size) -> np.ndarray:
            return fill.blocks(f"{case.name}/{name}/{key}", (frames, *size), high, cell).numpy()

        code = np.where(blocks("sel", n, spec["sel_high"], 8) == 0, blocks("alt", n, 9, 6), blocks("base", 1, 9, 6))
        wrong = blocks("perr", n, 12, 6) == 0
        pred = np.where(wrong, q_table[blocks("palt", n, 10, 6)], p_table[code])
        videos[name] = (reduce_labels(raw_table[code]), pred.astype(np.uint8))
    return videos


def feed(metric, videos: Videos, names: Iterable[str] | None = None):
    """`metric` after all frames of the videos `names` (default: all), in order."""
    for name in videos if names is None else names:
        target, pred = videos[name]
        for frame in range(len(target)):
            metric.update(name, frame, pred[frame], target[frame])
    return metric
