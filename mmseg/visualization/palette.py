"""Colours of labels: what a data set brings, or else colours that people tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mmseg.visualization.colour_space import SIGHTS, lab

IGNORE_INDEX = 255

# Okabe and Ito's colours without black ("Color universal design", 2008): safe with colour blindness, and with names
# that everybody knows.
_FIRST = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_LIGHTNESS = (25.0, 95.0)  # no black and no white ...
_LEAST_CHROMA = 35.0  # ... and no grey: over frames it says nothing
_BLIND_WEIGHT = 2.0  # with all of the weight on colour blindness, later colours get too alike for everybody else
_STEP = 17  # of the candidates' channels


def default_palette(num_classes: int) -> list[list[int]]:
    """Separated RGB colours for classes that have none; the first ones stay the same, whatever their number.

    Okabe and Ito's seven, and then, again and again, that colour of a grid which is farthest in CIELAB from all those
    chosen before (the smallest distance counts), where the distance of two colours is the smallest of that which
    people with normal sight see and twice those under simulated protanopia and deuteranopia. Neither black, white,
    nor greys. The smallest distances (CIE 1976) among the first 8, 20 and 124 colours are 26.4, 26.4 and 11.1 (with
    colour blindness 17.2, 17.2 and 5.7).

    Args:
        num_classes: 0 to 255.
    """
    return [list(colour) for colour in _separated(num_classes)]


@lru_cache
def _separated(count: int) -> tuple[tuple[int, ...], ...]:
    levels = np.arange(0, 256, _STEP)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = lab(candidates).T
    fitting = (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1]) & (np.hypot(a, b) >= _LEAST_CHROMA)
    colours = np.concatenate([_FIRST, candidates[fitting]])
    points = np.stack([lab(colours, sight) for sight in SIGHTS])  # (3, N, 3)
    points[1:] *= _BLIND_WEIGHT
    chosen: list[int] = []
    nearest = np.full(len(colours), np.inf)
    while len(chosen) < count:
        new = len(chosen) if len(chosen) < len(_FIRST) else int(nearest.argmax())
        chosen.append(new)
        distances = np.linalg.norm(points - points[:, new : new + 1], axis=-1).min(axis=0)
        nearest = np.minimum(nearest, distances)
    return tuple(tuple(colours[index].tolist()) for index in chosen)


def bit_palette(count: int) -> list[list[int]]:
    """The colours of PASCAL VOC and DAVIS for labels 1 to `count`, RGB: bits of the label, interleaved."""
    colours = []
    for label in range(1, count + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append(rgb)
    return colours


def davis_palette() -> np.ndarray:
    """(256, 3) uint8 RGB: the palette of the masks of DAVIS, 22 colours (191 in place of 192) and then greys."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    table[:22] = np.minimum([[0, 0, 0], *bit_palette(21)], 191)
    return table


def palette_table(palette: Sequence[Sequence[int]] | None, num_classes: int | None) -> np.ndarray:
    """(256, 3) uint8 RGB: the colour of every label value; ignored pixels and unused values are black.

    Pictures show the frame, untouched, where the colour is black.

    Args:
        palette: RGB colours in label order; None takes :func:`default_palette`.
        num_classes: K; None: labels are object numbers, with the colours of DAVIS: 0 (background) is black.
    """
    table = np.zeros((256, 3), np.uint8)
    if palette is None and num_classes is None:
        palette = [[0, 0, 0], *bit_palette(IGNORE_INDEX - 1)]
    elif palette is None:
        palette = default_palette(min(num_classes, IGNORE_INDEX))
    if not len(palette):
        return table
    colours = np.asarray(palette, np.uint8)
    table[: min(len(colours), IGNORE_INDEX)] = colours[:IGNORE_INDEX]
    return table
