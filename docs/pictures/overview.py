#!/usr/bin/env python
"""Draws the picture at the top of the README: python docs/pictures/overview.py (from the root of a checkout).

The scenes are those of the toy data sets, the labels the ones that come with them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmseg.images import read_frame, read_mask
from mmseg.making.toy import generate_toy_dataset
from mmseg.making.toy_given import generate_toy_given
from mmseg.making.toy_objects import generate_toy_objects
from mmseg.making.toy_scene import TOY_CLASSES
from mmseg.visualization import overlay, palette_table
from mmseg.visualization.legend import patch

PICTURE = Path(__file__).with_suffix(".jpg")
SIZE = (216, 384)  # of the scenes
WIDE, TALL = 2.24, 1.26  # of a frame in the picture, inches
OPACITY = 0.7
INK, FAINT, NOW, KEPT = "#222222", "#8a8a8a", "#D55E00", "#0072B2"


def scenes(folder: Path) -> dict[str, list[np.ndarray]]:
    """Frames and labels of the toy data sets, and pictures made of them: (H, W, 3) uint8 BGR."""
    generate_toy_dataset(folder / "classes", 6, 1, 0, 12, SIZE)
    generate_toy_objects(folder / "moving", 1, 3, 6, SIZE, flow="farneback")
    generate_toy_given(folder / "given", 2, 1, 1, 12, SIZE)
    video = folder / "classes/data/train_005"
    frames = [read_frame(path) for path in sorted((video / "origin").iterdir())]
    labels = [read_mask(path) for path in sorted((video / "mask").iterdir())]
    labels = [np.where(x == 255, x, x - np.uint8(1)) for x in labels]  # 0, which is no class, becomes 255
    moving = [folder / f"moving/{kind}/val/toy002_00004" for kind in ("frame", "flow", "mask")]
    frame, flow = (read_frame(path.with_suffix(".jpg")) for path in moving[:2])
    found = overlay(frame, read_mask(moving[2].with_suffix(".png")), palette_table([[0] * 3, [255, 0, 0]], 2), OPACITY)
    clip = folder / "given/DAVIS/2017/trainval"
    paths = sorted((clip / "JPEGImages/480p/train_001").iterdir())
    masks = sorted((clip / "Annotations/480p/train_001").iterdir())
    table = palette_table(None, None)
    given = [overlay(read_frame(paths[n]), read_mask(masks[n]), table, OPACITY) for n in (0, 5, 9)]
    return {"frames": frames, "labels": labels, "moving": [frame, flow, found], "given": given}


def show(axes: Axes, picture: np.ndarray, x: float, y: float, wide: float = WIDE) -> None:
    """A picture whose lower left corner is at x, y (inches)."""
    tall = wide * picture.shape[0] / picture.shape[1]
    axes.imshow(picture[..., ::-1], extent=(x, x + wide, y, y + tall), interpolation="lanczos", zorder=2)


def box(axes: Axes, x: float, y: float, wide: float, tall: float, text: str, colour: str, filled: bool = False) -> None:
    """A box with a text in its middle."""
    style = "round,pad=0,rounding_size=0.08"
    face = colour if filled else "white"
    axes.add_patch(FancyBboxPatch((x, y), wide, tall, boxstyle=style, facecolor=face, edgecolor=colour, linewidth=1.6))
    ink = "white" if filled else colour
    axes.text(x + wide / 2, y + tall / 2, text, ha="center", va="center", color=ink, fontsize=11, zorder=3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    """An arrow from one place to another."""
    shape = dict(arrowstyle="-|>", mutation_scale=13, linewidth=1.6, shrinkA=0, shrinkB=0)
    axes.add_patch(FancyArrowPatch(start, end, color=colour, linestyle=style, zorder=1, **shape))


def draw_stream(axes: Axes, frames: list[np.ndarray], labels: list[np.ndarray]) -> None:
    """Frames in, features kept, labels out."""
    names = ["t \u2212 9", "t \u2212 6", "t \u2212 3", "t"]
    for column, (number, name) in enumerate(zip((2, 5, 8, 11), names)):
        x, now = 0.3 + column * (WIDE + 0.22), column == 3
        show(axes, frames[number], x, 5.75)
        axes.text(x + WIDE / 2, 5.75 + TALL + 0.1, name, ha="center", fontsize=12, color=NOW if now else INK)
        middle = x + WIDE / 2
        if now:
            arrow(axes, (middle, 5.72), (middle, 5.47), NOW)
            box(axes, x + 0.32, 5.08, WIDE - 0.64, 0.36, "encoder", NOW, filled=True)
            arrow(axes, (middle, 5.06), (middle, 4.82), NOW)
        else:
            arrow(axes, (middle, 5.72), (middle, 4.82), FAINT, ":")
        box(axes, x + 0.12, 4.42, WIDE - 0.24, 0.37, "features" if now else "features, kept", NOW if now else KEPT)
        arrow(axes, (middle, 4.40), (middle, 4.13), NOW if now else KEPT)
    box(axes, 0.3, 3.72, 4 * WIDE + 3 * 0.22, 0.39, "fusion over time", INK, filled=True)
    left = 0.3 + 4 * (WIDE + 0.22) + 0.45
    table = palette_table(None, len(TOY_CLASSES))
    out = overlay(frames[11], labels[11], table, OPACITY)
    axes.plot([left - 0.65, left - 0.42, left - 0.42], [3.915, 3.915, 5.9], color=INK, linewidth=1.6)
    arrow(axes, (left - 0.43, 5.9), (left - 0.05, 5.9), INK)
    show(axes, out, left, 5.0, 3.25)
    axes.text(left + 3.25 / 2, 6.93, "labels of frame t", ha="center", fontsize=12, color=INK)
    present = [int(c) for c in np.unique(labels[11]) if c != 255]
    for place, label in enumerate(present):
        x, y = left + place % 3 * 1.12, 4.66 - place // 3 * 0.32
        colour = patch(table[label], 20, 40, OPACITY)
        axes.imshow(colour[..., ::-1], extent=(x, x + 0.3, y, y + 0.17), zorder=2)
        axes.text(x + 0.36, y + 0.085, TOY_CLASSES[label].name, va="center", fontsize=10.5, color=INK)
    note = "A frame is decoded once and encoded once.\nMemory does not grow with the video."
    axes.text(left, 3.88, note, fontsize=10.5, color=INK, va="center")


def draw_task(axes: Axes, x: float, title: str, systems: str, pictures: list[np.ndarray], names: list[str]) -> None:
    """A card: what goes in and what comes out."""
    wide = 1.34
    axes.text(x, 2.72, title, fontsize=13, color=INK, weight="bold")
    axes.text(x, 2.42, systems, fontsize=11, color=KEPT)
    for column, (picture, name) in enumerate(zip(pictures, names)):
        left = x + column * (wide + 0.12)
        show(axes, picture, left, 1.45, wide)
        axes.text(left + wide / 2, 1.24, name, ha="center", fontsize=10, color=INK)


def main(picture: Path = PICTURE) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = scenes(Path(folder))
    frames, labels = found["frames"], found["labels"]
    figure = Figure((14.2, 6.5), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw_stream(axes, frames, labels)
    axes.plot([0.3, 13.9], [3.3, 3.3], color="#d0d0d0", linewidth=1)
    table = palette_table(None, len(TOY_CLASSES))
    over_time = [overlay(frames[n], labels[n], table, OPACITY) for n in (1, 6, 11)]
    draw_task(
        axes,
        0.3,
        "Every pixel a class",
        "CFFM, CFFM++, MRCFA, THE-Mask, SegFormer",
        over_time,
        ["t", "t + 5", "t + 10"],
    )
    draw_task(axes, 5.0, "What moves, without being shown", "HFAN", found["moving"], ["frame", "motion", "object"])
    draw_task(axes, 9.7, "Objects from given masks", "GSFM", found["given"], ["given", "t + 5", "t + 9"])
    axes.set(xlim=(0, 14.2), ylim=(1.0, 7.5), aspect="equal")
    figure.savefig(picture, pil_kwargs={"quality": 82, "optimize": True})
    sys.stdout.write(f"{picture}: {picture.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
