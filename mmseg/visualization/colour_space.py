"""Distances of colours as people see them: CIELAB, with normal sight and with the two common colour blindnesses."""

from __future__ import annotations

from typing import Literal

import numpy as np

Sight = Literal["normal", "protanopia", "deuteranopia"]

# IEC 61966-2-1: linear sRGB to XYZ, and the white that it is relative to.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(axis=1)

# What people without one kind of cones see, in linear RGB (Viénot, Brettel and Mollon, "Digital video colourmaps for
# checking the legibility of displays by dichromats", 1999).
_SEEN: dict[str, np.ndarray] = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}
SIGHTS: tuple[Sight, ...] = ("normal", "protanopia", "deuteranopia")


def _linear(rgb: np.ndarray) -> np.ndarray:
    value = np.asarray(rgb, np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def as_seen(rgb: np.ndarray, sight: Sight) -> np.ndarray:
    """What colours or a picture look like to people of that sight.

    Args:
        rgb: (..., 3) uint8.
        sight: normal, or one of the two red-green blindnesses.

    Returns:
        (..., 3) uint8 RGB.
    """
    seen = np.clip(_linear(rgb) @ _SEEN[sight].T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def lab(rgb: np.ndarray, sight: Sight = "normal") -> np.ndarray:
    """(..., 3) RGB of 0 to 255 -> (..., 3) CIELAB, as people of that sight see it."""
    xyz = np.clip(_linear(rgb) @ _SEEN[sight].T, 0, 1) @ _TO_XYZ.T / _WHITE
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def smallest_distance(rgb: np.ndarray, sight: Sight = "normal") -> float:
    """The distance (CIE 1976) between those two of the colours (N, 3) that are most alike."""
    points = lab(rgb, sight)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)  # (N, N)
    return float(distances[~np.eye(len(points), dtype=bool)].min())
