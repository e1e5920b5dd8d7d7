"""Label maps in colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

IGNORE_INDEX = 255


def default_palette(num_classes: int) -> list[list[int]]:
    """Distinct RGB colours for classes that have none (the bit-interleaved colours of PASCAL VOC, black left out)."""
    colours = []
    for label in range(1, num_classes + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append(rgb)
    return colours


def davis_palette() -> np.ndarray:
    """(256, 3) uint8 RGB: the palette of the masks of DAVIS, 22 colours (191 in place of 192) and then greys."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    table[:22] = np.minimum([[0, 0, 0], *default_palette(21)], 191)
    return table


def palette_table(palette: Sequence[Sequence[int]] | None, num_classes: int | None) -> np.ndarray:
    """(256, 3) uint8 RGB: the colour of every label value; ignored pixels and unused values are black.

    Args:
        palette: RGB colours in label order; None takes the default ones.
        num_classes: K; None: labels are object numbers, 0 (background) is black.
    """
    table = np.zeros((256, 3), np.uint8)
    if palette is None and num_classes is None:
        palette = [[0, 0, 0], *default_palette(IGNORE_INDEX - 1)]
    elif palette is None:
        palette = default_palette(num_classes)
    colours = np.asarray(palette, np.uint8)
    table[: min(len(colours), IGNORE_INDEX)] = colours[:IGNORE_INDEX]
    return table


def colourise(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels -> (H, W, 3) uint8 BGR, as OpenCV writes it."""
    return np.ascontiguousarray(table[:, ::-1])[labels]


def overlay(frame: np.ndarray, labels: np.ndarray, table: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """The colours of `labels` laid over `frame` ((H, W, 3) uint8 BGR); ignored pixels keep the frame, darkened."""
    mixed = frame.astype(np.float32) * (1 - opacity) + colourise(labels, table).astype(np.float32) * opacity
    return mixed.astype(np.uint8)
