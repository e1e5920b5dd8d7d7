"""Optical flow as a picture: direction is hue, length is saturation, white is no motion.

Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011: the usual wheel of 55 colours.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mmseg.errors import DataError

_ARCS = ((15, 0, 1), (6, 0, 1), (4, 1, 2), (11, 1, 2), (13, 2, 0), (6, 2, 0))  # colours from red to yellow, green ...
_EPSILON = 1e-5


@cache
def colour_wheel() -> np.ndarray:
    """(55, 3) float64 RGB, 0..255: red, yellow, green, cyan, blue, magenta and what lies between them."""
    wheel = []
    for arc, (number, start, end) in enumerate(_ARCS):
        ramp = np.floor(255 * np.arange(number) / number)
        colours = np.zeros((number, 3))
        rising = arc % 2 == 0
        colours[:, start] = 255 if rising else 255 - ramp
        colours[:, end] = ramp if rising else 255
        wheel.append(colours)
    return np.concatenate(wheel)


def wheel_picture(flow: np.ndarray) -> np.ndarray:
    """The usual picture of a flow field, (H, W, 3) uint8 RGB; lengths are relative to the longest vector of the field.

    Args:
        flow: (H, W, 2) float, pixels to the right and down.

    Raises:
        DataError: a field of another shape, or values that are not finite.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not np.isfinite(flow).all():
        raise DataError(
            f"optical flow of shape {flow.shape}" + ("" if flow.ndim != 3 or flow.shape[2] != 2 else ", not finite"),
            "(H, W, 2) finite numbers, pixels to the right and down",
            "check the network and its weights",
        )
    flow = flow.astype(np.float64)
    flow /= np.sqrt((flow**2).sum(axis=-1)).max() + _EPSILON
    radius = np.sqrt((flow**2).sum(axis=-1))[..., None]  # (H, W, 1)
    place = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2 * (len(colour_wheel()) - 1)
    before = np.floor(place).astype(np.intp)
    share = (place - before)[..., None]
    wheel = colour_wheel() / 255
    colour = (1 - share) * wheel[before] + share * wheel[(before + 1) % len(wheel)]
    colour = np.where(radius <= 1, 1 - radius * (1 - colour), 0.75 * colour)
    return np.floor(255 * colour).astype(np.uint8)


def flow_picture(flow: np.ndarray) -> np.ndarray:
    """The picture that HFAN is given, (H, W, 3) uint8 **BGR**, as OpenCV stores and reads it.

    In the published files red and blue of the usual picture are exchanged, and the networks have been trained on that.

    Args:
        flow: (H, W, 2) float, pixels to the right and down, from a frame to the next one.
    """
    return wheel_picture(flow)


def no_flow(frame: np.ndarray) -> np.ndarray:
    """The picture of no motion at all, (H, W, 3) uint8, for a frame (H, W, 3)."""
    return np.full_like(frame, 255)
