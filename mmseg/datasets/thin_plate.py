"""Thin-plate-spline warps: a few control points move by a little, and everything between them follows smoothly."""

from __future__ import annotations

import cv2
import numpy as np

_POINTS = 12
_SPREAD = 0.02  # of the movement, as a share of the side
_EPSILON = 1e-6


def draw_control_points(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where 12 points of a square image are and where they go, (12, 2) float32 each, (x, y) as shares of `side`."""
    axes = [rng.choice(side, _POINTS, replace=False) for _ in range(2)]
    source = (np.stack(axes, axis=1) / side).astype(np.float32)
    return source, (source + rng.normal(0, _SPREAD, source.shape)).astype(np.float32)


def thin_plate_maps(source: np.ndarray, target: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a warped image comes from.

    For each coordinate the spline f interpolates ``f(target) = source - target``, with the kernel r^2 log r and an
    affine part; a pixel at p, from (0, 0) to (1, 1), is taken from p + f(p) (GSFM specification, section 8.1).

    Args:
        source, target: (n, 2) control points, (x, y) as shares of the sides.
        size: (height, width) of the image.

    Returns:
        x and y, (height, width) float32 each, in pixels.
    """
    count, target = len(target), target.astype(np.float64)
    affine_part = np.concatenate([np.ones((count, 1)), target], axis=1)  # (n, 3)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(target, target)
    system[:count, count:], system[count:, :count] = affine_part, affine_part.T
    values = np.zeros((count + 3, 2))
    values[:count] = source - target
    weights = np.linalg.solve(system, values)  # (n + 3, 2)
    height, width = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    places = np.stack([x.ravel(), y.ravel()], axis=1)  # (height * width, 2)
    moved = places + _kernel(places, target) @ weights[:count] + weights[count] + places @ weights[count + 1 :]
    maps = (moved * [width, height]).astype(np.float32).reshape(height, width, 2)
    return maps[..., 0], maps[..., 1]


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """r^2 log(r + 1e-6) between points (m, 2) and (n, 2) -> (m, n)."""
    squares = ((one[:, None] - other[None]) ** 2).sum(-1)
    return squares * np.log(np.sqrt(squares) + _EPSILON)


def warp(image: np.ndarray, maps: tuple[np.ndarray, np.ndarray], is_mask: bool = False) -> np.ndarray:
    """An image (H, W, 3) or a mask (H, W), uint8, warped; black outside."""
    return cv2.remap(image, *maps, cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR)
