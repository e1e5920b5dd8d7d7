"""Transforms that change colours.

Frames are 8-bit, so that a change of each channel on its own is a table of 256 entries: computed with the specified
float arithmetic, then looked up, which gives the same numbers several times faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
from annotated_types import Ge, Le, Len

from mmseg.datasets.transforms.geometry import PICTURES
from mmseg.registry import TRANSFORMS
from mmseg.values import NonNegativeFloat, PositiveFloat, PositiveRange

_LEVELS = np.arange(256, dtype=np.float32)


def _linear_table(alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
    """clip(v * alpha + beta) in float32, truncated to uint8, for v = 0..255."""
    return np.clip(_LEVELS * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)


def adjust_brightness(image: np.ndarray, delta: float) -> np.ndarray:
    """Add `delta` to (H, W, 3) uint8."""
    return cv2.LUT(image, _linear_table(beta=delta))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply (H, W, 3) uint8 by `factor`."""
    return cv2.LUT(image, _linear_table(alpha=factor))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the S of 8-bit HSV by `factor`; (H, W, 3) uint8 BGR."""
    return _through_hsv(image, 1, _linear_table(alpha=factor))


def adjust_hue(image: np.ndarray, delta: int) -> np.ndarray:
    """Turn the H of 8-bit HSV (0..179) by `delta`; (H, W, 3) uint8 BGR."""
    return _through_hsv(image, 0, ((np.arange(256) + delta) % 180).astype(np.uint8))


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


class Distortion(NamedTuple):
    """What was drawn for one picture."""

    before: np.ndarray | None  # (256,) uint8: brightness and, if it comes first, contrast
    saturation: float | None
    hue: int | None
    after: np.ndarray | None  # (256,) uint8: contrast, if it comes last; all that there is, without colour steps

    def colours(self, image: np.ndarray) -> np.ndarray:
        """All but the last step, of (H, W, 3) uint8 BGR."""
        if self.before is not None:
            image = cv2.LUT(image, self.before)
        if self.saturation is not None:
            image = adjust_saturation(image, self.saturation)
        return image if self.hue is None else adjust_hue(image, self.hue)


@TRANSFORMS.register_module()
class PhotoMetricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 1/2; every picture draws its own.

    Contrast comes before or after the colour steps, by a coin. Each step is clipped and truncated to uint8.

    Args:
        brightness_delta: added value is uniform in plus or minus this.
        contrast_range: factor of all channels.
        saturation_range: factor of S.
        hue_delta: H is turned by an integer from -hue_delta to hue_delta - 1 (in units of two degrees).
    """

    def __init__(
        self,
        brightness_delta: NonNegativeFloat = 32,
        contrast_range: PositiveRange = (0.5, 1.5),
        saturation_range: PositiveRange = (0.5, 1.5),
        hue_delta: Annotated[int, Ge(0), Le(180)] = 18,
    ) -> None:
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_range, self.saturation_range = tuple(contrast_range), tuple(saturation_range)

    def draw(self, rng: np.random.Generator) -> Distortion:
        """One draw for one picture. What two tables do one after the other, one table does."""
        before = after = saturation = hue = None
        if rng.integers(2):
            before = _linear_table(beta=rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = rng.integers(2)
        if contrast_first and (table := self._draw_contrast(rng)) is not None:
            before = table if before is None else table[before]
        if rng.integers(2):
            saturation = rng.uniform(*self.saturation_range)
        if rng.integers(2) and self.hue_delta:
            hue = int(rng.integers(-self.hue_delta, self.hue_delta))
        if not contrast_first:
            after = self._draw_contrast(rng)
        if saturation is hue is None and before is not None:  # nothing lies between the tables
            before, after = None, before if after is None else after[before]
        return Distortion(before, saturation, hue, after)

    def _draw_contrast(self, rng: np.random.Generator) -> np.ndarray | None:
        return _linear_table(alpha=rng.uniform(*self.contrast_range)) if rng.integers(2) else None

    def distort(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw for one frame (H, W, 3) uint8 BGR."""
        drawn = self.draw(rng)
        image = drawn.colours(image)
        return image if drawn.after is None else cv2.LUT(image, drawn.after)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Frames, then pictures of optical flow: their colours, which tell directions, are distorted as well."""
        for key in PICTURES:
            if key in results:
                results[key] = [self.distort(image, results["rng"]) for image in results[key]]
        return results


@TRANSFORMS.register_module()
class Normalize:
    """uint8 BGR to float32: channel order, minus mean, times 1/std.

    Args:
        mean: of the channels after the reordering, in grey levels.
        std: the same.
        to_rgb: reverse the channels.
    """

    def __init__(
        self,
        mean: Annotated[Sequence[float], Len(3, 3)],
        std: Annotated[Sequence[PositiveFloat], Len(3, 3)],
        to_rgb: bool = True,
    ) -> None:
        self.mean, self.std, self.to_rgb = np.asarray(mean, np.float64), np.asarray(std, np.float64), to_rgb
        levels = np.repeat(_LEVELS[None, :, None], 3, axis=2)  # (1, 256, 3)
        self._table = self._apply(levels)

    def _apply(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 in final channel order; multiplies by the double-precision reciprocal."""
        return cv2.multiply(cv2.subtract(image, self.mean[None]), 1 / self.std[None])

    def normalize(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 or float32 BGR -> (H, W, 3) float32."""
        if self.to_rgb:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return cv2.LUT(image, self._table) if image.dtype == np.uint8 else self._apply(image)

    def planes(self, image: np.ndarray, out: np.ndarray, after: np.ndarray | None = None) -> None:
        """Write :meth:`normalize` of an (H, W, 3) uint8 BGR image to `out` (3, H, W) float32.

        Args:
            after: (256,) uint8, a change of all levels that comes before.
        """
        tables = self._table[0] if after is None else self._table[0, after]  # (256, 3)
        planes = cv2.split(image)
        for plane, table, target in zip(reversed(planes) if self.to_rgb else planes, tables.T, out):
            written = cv2.LUT(plane, np.ascontiguousarray(table), dst=target)
            if written is not target:
                target[...] = written

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        for key in PICTURES:
            if key in results:
                results[key] = [self.normalize(image) for image in results[key]]
        self.note(results["meta"])
        return results

    def note(self, meta: dict[str, Any]) -> None:
        """Write into `meta` what was done."""
        meta["img_norm_cfg"] = dict(mean=self.mean, std=self.std, to_rgb=self.to_rgb)
