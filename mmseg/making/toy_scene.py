"""Synthetic videos with labels: textured shapes that move and hide each other over moving textured backgrounds.

A class is told by colour, texture and - for objects - outline together: each of them varies from video to video or is
shared between classes, so that there is something to learn; yet a small network learns it in minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmseg.errors import ConfigError

Size = tuple[int, int]
Array = np.ndarray

VOID, UNSURE = 0, 255  # raw labels: "other things", and the pixels on outlines
_SMALLEST = 32  # side of a frame, in pixels
_SPRITE = 96  # side of the picture of an object before it is scaled
_HUE_JITTER, _SATURATION_JITTER, _VALUE_JITTER = 6.0, 0.1, 0.1


@dataclass(frozen=True)
class ToyClass:
    """How a class looks. Hue in degrees, saturation and value from 0 to 1; backgrounds have no outline."""

    name: str
    hue: float
    saturation: float
    value: float
    texture: str
    outline: str | None


# Every leading part of at least three has a background and an object.
TOY_CLASSES = (
    ToyClass("meadow", 110, 0.65, 0.55, "blotches", None),
    ToyClass("disc", 0, 0.8, 0.8, "dots", "disc"),
    ToyClass("water", 215, 0.65, 0.65, "waves", None),
    ToyClass("box", 30, 0.85, 0.75, "stripes", "box"),
    ToyClass("kite", 310, 0.6, 0.75, "checks", "kite"),
    ToyClass("sand", 52, 0.4, 0.8, "grain", None),
    ToyClass("ring", 175, 0.7, 0.8, "rays", "ring"),
    ToyClass("star", 265, 0.6, 0.6, "circles", "star"),
)


def _blotches(y: Array, x: Array, rng: np.random.Generator) -> Array:
    noise = cv2.GaussianBlur(rng.standard_normal(y.shape).astype(np.float32), (0, 0), 3.0)
    return np.clip(noise / noise.std() / 1.5, -1, 1)


def _grain(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return rng.uniform(-1, 1, y.shape)


def _waves(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.sin(y / 1.6 + 1.5 * np.sin(x / 9.0 + rng.uniform(0, 6)))


def _stripes(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.sign(np.sin(x / 3.0 + rng.uniform(0, 6)))


def _dots(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.where(np.sin(x / 3.5) * np.sin(y / 3.5) > 0.3, -1.0, 0.5)


def _checks(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.sign(np.sin(x / 4.5) * np.sin(y / 4.5))


def _rays(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.sin(10 * np.arctan2(y - y.mean(), x - x.mean()))


def _circles(y: Array, x: Array, rng: np.random.Generator) -> Array:
    return np.sin(np.hypot(y - y.mean(), x - x.mean()) / 2.2)


_TEXTURES: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "blotches": _blotches,
    "grain": _grain,
    "waves": _waves,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "rays": _rays,
    "circles": _circles,
}


def check_recipe(recipe: Mapping[str, Any], **least: int) -> None:
    """Raise ConfigError for a number below the least that it can be, or a `size` of frames that is too small."""
    for name, limit in least.items():
        if recipe[name] < limit:
            raise ConfigError(f"{name}={recipe[name]}", f"at least {limit}", f"raise {name}")
    if min(recipe["size"]) < _SMALLEST:
        raise ConfigError(f"size={recipe['size']}", f"sides of at least {_SMALLEST} pixels", "make it larger")


def paint(look: ToyClass, size: Size, rng: np.random.Generator) -> Array:
    """A surface of a class with the colours of one video: (H, W, 3) uint8 BGR."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    relief = _TEXTURES[look.texture](y, x, rng)  # (H, W), -1..1
    hsv = np.empty((*size, 3), np.float32)
    hsv[..., 0] = (look.hue + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 360
    hsv[..., 1] = np.clip(look.saturation + rng.uniform(-_SATURATION_JITTER, _SATURATION_JITTER), 0, 1)
    value = look.value + rng.uniform(-_VALUE_JITTER, _VALUE_JITTER)
    hsv[..., 2] = np.clip(value * (1 + 0.28 * relief), 0, 1)
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * 255).astype(np.uint8)


def outline_mask(outline: str) -> Array:
    """The outline of an object, filled: (S, S) uint8, 255 inside."""
    mask = np.zeros((_SPRITE, _SPRITE), np.uint8)
    middle, radius = _SPRITE / 2, _SPRITE / 2 - 2
    centre = (int(middle), int(middle))
    if outline in ("disc", "ring"):
        cv2.circle(mask, centre, int(radius), 255, -1)
        if outline == "ring":
            cv2.circle(mask, centre, int(radius * 0.45), 0, -1)
        return mask
    angles = {
        "box": np.arange(4) * np.pi / 2 + np.pi / 4,
        "kite": np.array([-0.5, 0.17, 0.5, 0.83]) * np.pi,
        "star": np.arange(10) * np.pi / 5 - np.pi / 2,
    }[outline]
    lengths = np.where(np.arange(10) % 2 == 0, 1.0, 0.5) if outline == "star" else np.ones(len(angles))
    corners = middle + radius * lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    return mask


class Mover:
    """An object: its picture, and where it is at any time; it bounces off the sides of the frame."""

    def __init__(self, look: ToyClass | None, label: int, rng: np.random.Generator) -> None:
        self.label = label
        if look is None:  # something grey that is no class
            self.mask = outline_mask("disc")
            noise = rng.integers(60, 190, (12, 12, 1), dtype=np.uint8).repeat(3, axis=2)
            self.picture = cv2.resize(noise, (_SPRITE, _SPRITE), interpolation=cv2.INTER_NEAREST)
        else:
            self.mask = outline_mask(look.outline)
            self.picture = paint(look, self.mask.shape, rng)
        self.radius = rng.uniform(0.16, 0.25) if look is not None else rng.uniform(0.06, 0.1)  # of the frame's height
        self.start, self.speed = rng.uniform(0, 2, 2), rng.uniform(0.008, 0.025, 2)
        self.angle, self.spin = rng.uniform(0, 360), rng.uniform(-4, 4)
        self.phase = rng.uniform(0, 2 * np.pi)

    def draw(self, frame: Array, labels: Array, t: int) -> None:
        """Paint the object at time t over `frame` (H, W, 3) and `labels` (H, W), in place."""
        height, width = labels.shape
        place = _bounce(self.start + self.speed * t, 1.0)  # (x, y) relative to the frame
        scale = 2 * self.radius * height / _SPRITE * (1 + 0.15 * np.sin(self.phase + 0.2 * t))
        matrix = cv2.getRotationMatrix2D((_SPRITE / 2, _SPRITE / 2), self.angle + self.spin * t, scale)
        matrix[:, 2] += place * (width, height) - _SPRITE / 2
        inside = cv2.warpAffine(self.mask, matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
        picture = cv2.warpAffine(
            self.picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        frame[inside] = picture[inside]
        labels[inside] = self.label


def _bounce(way: Array, length: float) -> Array:
    """Where something is after a way to and fro between 0 and `length`."""
    return length - np.abs(way % (2 * length) - length)


class ToyScene:
    """One video, as a function of time.

    Args:
        number: of the video; consecutive ones show all classes in turn.
        num_classes: how many of ``TOY_CLASSES`` there are; class c has the raw label c + 1.
        size: (height, width) of the frames.
        rng: determines everything that is not determined by `number`.
    """

    def __init__(self, number: int, num_classes: int, size: Size, rng: np.random.Generator) -> None:
        self.size = size
        self._noise = np.random.default_rng(rng.integers(2**63))
        looks = list(enumerate(TOY_CLASSES[:num_classes], start=1))
        grounds = [entry for entry in looks if entry[1].outline is None]
        things = [entry for entry in looks if entry[1].outline is not None]
        self._margin = margin = max(size)  # room to scroll
        self._grounds = []
        for i in range(2):
            label, look = grounds[(number + i) % len(grounds)]
            self._grounds.append((label, paint(look, (size[0] + margin, size[1] + margin), rng)))
        self._scroll = rng.uniform(-1.2, 1.2, (2, 2))  # pixels per frame
        self._offset = rng.uniform(0, 2 * margin, (2, 2))
        self._horizon, self._slope = rng.uniform(0.35, 0.65), rng.uniform(-0.25, 0.25)
        self._drift, self._phase = rng.uniform(-0.3, 0.3), rng.uniform(0, 6)
        count = min(4, 2 * len(things))
        movers = [Mover(look, label, rng) for i in range(count) for label, look in [things[(number + i) % len(things)]]]
        movers += [Mover(None, VOID, rng)]
        self._movers = [movers[i] for i in rng.permutation(len(movers))]
        self._light = rng.uniform(0.85, 1.1)

    def render(self, t: int) -> tuple[Array, Array]:
        """Frame t: (H, W, 3) uint8 BGR, and its raw labels (H, W) uint8. Call it for t = 0, 1, ... in order."""
        height, width = self.size
        y, x = np.mgrid[:height, :width]
        wave = 0.04 * np.sin(x / width * 7 + self._phase + 0.15 * t)
        line = self._horizon + self._slope * (x / width - 0.5) + 0.02 * self._drift * t + wave
        below = y > line * height
        surfaces = [self._surface(i, t) for i in range(2)]
        frame = np.where(below[..., None], surfaces[0], surfaces[1])
        labels = np.where(below, np.uint8(self._grounds[0][0]), np.uint8(self._grounds[1][0]))
        for mover in self._movers:
            mover.draw(frame, labels, t)
        noisy = frame * self._light + self._noise.normal(0, 4, frame.shape)
        edge = cv2.erode(labels, np.ones((3, 3), np.uint8)) != labels  # one pixel wide
        labels[edge] = UNSURE
        return np.clip(noisy, 0, 255).astype(np.uint8), labels

    def _surface(self, i: int, t: int) -> Array:
        """What is seen of a background at time t: (H, W, 3)."""
        painted = self._grounds[i][1]
        top, left = _bounce(self._offset[i] + self._scroll[i] * t, self._margin).astype(int)
        return painted[top : top + self.size[0], left : left + self.size[1]]
