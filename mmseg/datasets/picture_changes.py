"""Changes of pictures and their masks for synthetic motion, in Pillow, with the formulas of torchvision's transforms.

A draw is made once and applied to a picture and its mask. (torchvision itself is not imported: its import takes as long
as that of PyTorch.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from PIL.Image import Resampling

Range = tuple[float, float]

FILL = (124, 116, 104)  # outside of a picture; 0 outside of a mask


def affine(
    image: Image.Image, angle: float, scale: float, shear: float, resample: Resampling = Resampling.NEAREST
) -> Image.Image:
    """An image turned, scaled and sheared around its centre.

    Args:
        image: RGB, filled with the mean colour outside, or one channel, filled with 0.
        angle: degrees, clockwise.
        scale: factor of its size.
        shear: degrees, along x.
        resample: bicubic or nearest.
    """
    cx, cy = image.size[0] / 2, image.size[1] / 2
    turn, slope = math.radians(angle), math.tan(math.radians(shear))
    # the inverse of scale * (rotation @ shear), from places in the result to places in the image
    a, b = math.cos(turn), -math.cos(turn) * slope - math.sin(turn)
    c, d = math.sin(turn), -math.sin(turn) * slope + math.cos(turn)
    inverse = [d / scale, -b / scale, 0.0, -c / scale, a / scale, 0.0]
    inverse[2] = cx - inverse[0] * cx - inverse[1] * cy
    inverse[5] = cy - inverse[3] * cx - inverse[4] * cy
    fill = FILL if image.mode == "RGB" else 0
    return image.transform(image.size, Image.Transform.AFFINE, inverse, resample, fillcolor=fill)


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue, changed by up to these shares, in a random order."""

    brightness: float
    contrast: float
    saturation: float
    hue: float = 0.0

    def draw(self, rng: np.random.Generator) -> Recolouring:
        """One draw."""
        factors = [
            rng.uniform(max(0.0, 1 - width), 1 + width) for width in (self.brightness, self.contrast, self.saturation)
        ]
        hue = rng.uniform(-self.hue, self.hue) if self.hue else 0.0
        return Recolouring(*factors, hue, tuple(rng.permutation(4).tolist()))


class Recolouring(NamedTuple):
    """A change of the colours of RGB images."""

    brightness: float  # factors
    contrast: float
    saturation: float
    hue: float  # share of a turn
    order: tuple[int, ...]  # in which they are applied, by their positions above

    def __call__(self, image: Image.Image) -> Image.Image:
        for number in self.order:
            if number < len(_ENHANCEMENTS):
                image = _ENHANCEMENTS[number](image).enhance(self[number])
            elif self.hue:
                image = _turned_hue(image, self.hue)
        return image


_ENHANCEMENTS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def _turned_hue(image: Image.Image, share: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(share * 255) % 256)  # wraps around
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


class Motion(NamedTuple):
    """An affine motion, see :func:`affine`."""

    angle: float
    scale: float
    shear: float


def grey(image: Image.Image) -> Image.Image:
    """An RGB image without colour."""
    return Image.merge("RGB", [image.convert("L")] * 3)


def mirrored(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def resized_short_side(image: Image.Image, side: int, resample: Resampling) -> Image.Image:
    """The shorter side gets `side` pixels, the other one is rounded down."""
    width, height = image.size
    if width <= height:
        return image.resize((side, int(side * height / width)), resample)
    return image.resize((int(side * width / height), side), resample)


def crop_corner(size: tuple[int, int], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """A (left, top) corner of a square of `side` pixels in an image of `size` (width, height)."""
    return int(rng.integers(size[0] - side + 1)), int(rng.integers(size[1] - side + 1))


def resized_crop_box(
    size: tuple[int, int], area: Range, aspect: Range, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of a random crop.

    Args:
        size: (width, height) of the image.
        area: share of the image's area, uniform.
        aspect: width / height, log-uniform.
    """
    width, height = size
    for _ in range(10):
        target, ratio = width * height * rng.uniform(*area), math.exp(rng.uniform(*map(math.log, aspect)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, aspect[0]), aspect[1])  # the largest one in the middle
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def to_array(images: Sequence[Image.Image]) -> np.ndarray:
    """T images as one array."""
    return np.stack([np.asarray(image) for image in images])
