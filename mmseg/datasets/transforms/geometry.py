"""Transforms that move pixels: one draw for the whole clip, the same for frames and labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from annotated_types import Len

from mmseg import values
from mmseg.errors import ConfigError, DataError
from mmseg.registry import TRANSFORMS
from mmseg.structures import Flipped, Padded, Resized, Size

PICTURES = ("img", "flow")
"""Entries that are resized bilinearly: frames, and pictures of their optical flow where there are some."""

logger = logging.getLogger("mmseg.datasets")

MASKS = frozenset(("gt", "given"))
"""Entries that are resized with nearest neighbour: labels, and object ids that are shown to a model."""


def rescale_size(height: int, width: int, scale: Sequence[int]) -> Size:
    """(height, width) of the largest keep-ratio resize with long and short side within those of `scale`."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Bilinear resize (half-pixel centres) of (h, w, 3) to `size` (H, W)."""
    return image if image.shape[:2] == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_all(results: dict[str, Any], size: Size) -> None:
    """Resize all pictures and masks of `results`, and note it among its steps."""
    results.setdefault("steps", []).append(Resized(results["img"][-1].shape[:2]))
    for key in PICTURES:
        if key in results:
            results[key] = [resize_image(image, size) for image in results[key]]
    for key in MASKS & results.keys():
        results[key] = [resize_labels(labels, size) for labels in results[key]]


def resize_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """Nearest-neighbour resize, source index floor(target index * h / H), of (h, w) to `size` (H, W)."""
    return labels if labels.shape == size else cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def fitted_mask(mask: np.ndarray, size: Size, source: str | Path, warn: bool = False) -> np.ndarray:
    """`mask` (h, w) with the `size` of its frame; one that misses it by a row or column is resized.

    Args:
        mask: labels or object ids.
        size: (height, width) of the frame.
        source: where the mask is from, for messages.
        warn: tell of it in the log.

    Raises:
        DataError: it misses the size by more, or is no map of numbers.
    """
    if mask.shape == tuple(size):
        return mask
    if mask.ndim != 2 or max(abs(mask.shape[0] - size[0]), abs(mask.shape[1] - size[1])) > 1:
        shape = "x".join(map(str, mask.shape[1::-1])) if mask.ndim == 2 else f"shape {mask.shape}"
        raise DataError(
            f"{source}: mask of {shape} pixels for a frame of {size[1]}x{size[0]}",
            "mask and frame of the same size",
            "resize the mask (nearest neighbour) or take frame and mask from the same release",
        )
    if warn:
        logger.warning("%s: mask of %dx%d pixels for a frame of %dx%d, resized", source, *mask.shape[::-1], *size[::-1])
    return resize_labels(mask, tuple(size))


@TRANSFORMS.register_module()
class Resize:
    """Resize a clip.

    Args:
        img_scale: (long side, short side), in any order with `keep_ratio`, else (width, height); None takes the scale
            that :class:`MultiScaleFlipAug` presets.
        ratio_range: multiply `img_scale` by a factor drawn uniformly from this range.
        keep_ratio: fit the frame into the scale, else stretch it.
        size_divisor: a second resize that rounds each side up to a multiple of this (stretches, does not pad).
        multiscale_mode: accepted for official configs; with a single scale it has no effect.
    """

    def __init__(
        self,
        img_scale: values.Size | Annotated[Sequence[values.Size], Len(1, 1)] | None = None,
        ratio_range: values.PositiveRange | None = None,
        keep_ratio: bool = True,
        size_divisor: values.PositiveInt | None = None,
        multiscale_mode: Literal["range", "value"] = "range",
    ) -> None:
        if img_scale is not None and len(img_scale) == 1:
            img_scale = img_scale[0]
        if ratio_range is not None and img_scale is None:
            raise ConfigError("Resize: ratio_range without img_scale", "both", "add img_scale")
        self.img_scale, self.ratio_range, self.keep_ratio = img_scale, ratio_range, keep_ratio
        self.size_divisor, self.multiscale_mode = size_divisor, multiscale_mode

    def draw_scale(self, rng: np.random.Generator) -> Size:
        """One draw of the integer scale."""
        if self.ratio_range is None:
            return tuple(self.img_scale)
        low, high = self.ratio_range
        return self.scaled(rng.random() * (high - low) + low)

    def scaled(self, ratio: float) -> Size:
        """``img_scale`` times a ratio, rounded down."""
        return max(int(self.img_scale[0] * ratio), 1), max(int(self.img_scale[1] * ratio), 1)

    def sizes(self, height: int, width: int, scale: Sequence[int]) -> list[Size]:
        """The (height, width) of each resize that is done, in order."""
        size = rescale_size(height, width, scale) if self.keep_ratio else (scale[1], scale[0])
        sizes = [size]
        if self.size_divisor:
            sizes.append(tuple(-(-side // self.size_divisor) * self.size_divisor for side in size))
        return sizes

    def scale(self, results: dict[str, Any]) -> Sequence[int]:
        """The scale of a clip: preset, drawn, or the only one.

        Raises:
            ConfigError: there is none.
        """
        scale = results.get("scale") or (self.draw_scale(results["rng"]) if self.img_scale is not None else None)
        if scale is None:
            raise ConfigError(
                "Resize: no img_scale", "a scale here or in MultiScaleFlipAug", "add img_scale=(853, 480)"
            )
        return scale

    def note(self, meta: dict[str, Any], before: Size, after: Size, channels: int) -> None:
        """Write into `meta` that frames of one size have become frames of another."""
        (height, width), (new_height, new_width) = before, after
        shape = (new_height, new_width, channels)
        meta.update(img_shape=shape, pad_shape=shape, keep_ratio=self.keep_ratio)
        meta["scale_factor"] = np.array([new_width / width, new_height / height] * 2, dtype=np.float32)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        before = results["img"][-1].shape[:2]
        for size in self.sizes(*before, self.scale(results)):
            resize_all(results, size)
        height, width, channels = results["img"][-1].shape
        self.note(results["meta"], before, (height, width), channels)
        return results


@TRANSFORMS.register_module()
class ResizeToMultiple:
    """A resize that rounds each side up to a multiple; it stretches, and does not pad.

    Args:
        size_divisor: of which the sides become multiples.
    """

    def __init__(self, size_divisor: values.PositiveInt = 32) -> None:
        self.size_divisor = size_divisor

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        sides = results["img"][-1].shape[:2]
        resize_all(results, tuple(-(-side // self.size_divisor) * self.size_divisor for side in sides))
        shape = results["img"][-1].shape
        results["meta"].update(img_shape=shape, pad_shape=shape)
        return results


@TRANSFORMS.register_module()
class RandomCrop:
    """Cut a window out of a clip; a smaller clip stays as it is.

    Args:
        crop_size: (height, width) of the window.
        cat_max_ratio: draw again, up to ten times, unless the labels of the last frame inside the window have at least
            two classes and none of them covers this share of the labelled pixels. 1 accepts every window.
        ignore_index: label that is not counted.
    """

    def __init__(
        self, crop_size: values.Size, cat_max_ratio: values.Fraction = 1.0, ignore_index: values.Byte = 255
    ) -> None:
        self.crop_size, self.cat_max_ratio, self.ignore_index = tuple(crop_size), cat_max_ratio, ignore_index

    def offset_choices(self, height: int, width: int) -> Size:
        """How many vertical and horizontal offsets there are for a frame of this size."""
        return max(height - self.crop_size[0], 0) + 1, max(width - self.crop_size[1], 0) + 1

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Size:
        """One draw of the (top, left) corner."""
        vertical, horizontal = self.offset_choices(height, width)
        return int(rng.integers(vertical)), int(rng.integers(horizontal))

    def crop(self, array: np.ndarray, corner: Size) -> np.ndarray:
        """The window at a corner, of frames (H, W, 3) or labels (H, W)."""
        (top, left), (height, width) = corner, self.crop_size
        return array[top : top + height, left : left + width]

    def is_mixed(self, labels: np.ndarray) -> bool:
        """Whether labels (h, w) have two classes or more and none that covers `cat_max_ratio` of them."""
        counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256]).ravel().astype(np.float64)
        counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio

    def corner(self, size: Size, window: Callable[[Size], np.ndarray] | None, rng: np.random.Generator) -> Size:
        """The (top, left) corner for a frame of `size`; `window` gives the labels of the last frame at a corner."""
        corner = self.draw(*size, rng)
        if self.cat_max_ratio < 1 and window is not None:
            for _ in range(10):
                if self.is_mixed(window(corner)):
                    break
                corner = self.draw(*size, rng)
        return corner

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        window = partial(self.crop, results["gt"][-1]) if "gt" in results else None
        corner = self.corner(results["img"][-1].shape[:2], window, results["rng"])
        for key in (*PICTURES, "gt"):
            if key in results:
                results[key] = [self.crop(array, corner) for array in results[key]]
        shape = results["img"][-1].shape
        results["meta"].update(img_shape=shape, pad_shape=shape)
        return results


@TRANSFORMS.register_module()
class RandomFlip:
    """Mirror a whole clip with probability `prob`, or as :class:`MultiScaleFlipAug` presets it.

    Args:
        prob: probability; None never flips unless preset.
        direction: 'horizontal' or 'vertical'.
        flip_ratio: older name of `prob`.
    """

    def __init__(
        self,
        prob: values.Fraction | None = None,
        direction: Literal["horizontal", "vertical"] = "horizontal",
        flip_ratio: values.Fraction | None = None,
    ) -> None:
        if prob is not None and flip_ratio is not None:
            raise ConfigError(f"prob={prob} and flip_ratio={flip_ratio}", "one of them", "remove flip_ratio")
        self.prob = flip_ratio if prob is None else prob
        self.direction = direction

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        flip = results.get("flip")
        if flip is None:
            flip = bool(self.prob) and bool(results["rng"].random() < self.prob)
        results["meta"].update(flip=flip, flip_direction=self.direction)
        if flip:
            results.setdefault("steps", []).append(Flipped(results["img"][-1].shape[:2], self.direction))
            code = 1 if self.direction == "horizontal" else 0  # as cv2.flip counts them
            for key in {*PICTURES, *MASKS} & results.keys():
                results[key] = [cv2.flip(array, code) for array in results[key]]
        return results


@TRANSFORMS.register_module()
class Pad:
    """Enlarge a clip at the bottom and on the right.

    Args:
        size: (height, width) to pad to, or
        size_divisor: pad each side to a multiple of this.
        pad_val: value for frames; 0 after Normalize is the mean colour.
        seg_pad_val: value for labels.
    """

    def __init__(
        self,
        size: values.Size | None = None,
        size_divisor: values.PositiveInt | None = None,
        pad_val: float = 0,
        seg_pad_val: values.Byte = 255,
    ) -> None:
        if (size is None) == (size_divisor is None):
            raise ConfigError(
                f"Pad: size={size!r}, size_divisor={size_divisor!r}", "exactly one of them", "drop one or add one"
            )
        self.size, self.size_divisor, self.pad_val, self.seg_pad_val = size, size_divisor, pad_val, seg_pad_val

    def margins(self, height: int, width: int) -> Size:
        """How many rows and columns a frame of this size gets."""
        if self.size is not None:
            return max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        return -height % self.size_divisor, -width % self.size_divisor

    def pad(self, array: np.ndarray, value: float) -> np.ndarray:
        """`array` (h, w) or (h, w, 3) padded to (H, W); one that is large enough already stays as it is."""
        below, right = self.margins(*array.shape[:2])
        if not (below or right):
            return array
        return cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=[value] * 3)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        results.setdefault("steps", []).append(Padded(results["img"][-1].shape[:2]))
        values = {**dict.fromkeys(PICTURES, self.pad_val), "gt": self.seg_pad_val, "given": 0}
        for key in values.keys() & results.keys():
            results[key] = [self.pad(array, values[key]) for array in results[key]]
        results["meta"]["pad_shape"] = results["img"][-1].shape
        return results
