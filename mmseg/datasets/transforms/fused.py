"""Neighbouring transforms done together, with the same numbers from the same draws.

What a pipeline says is a sequence of operations on whole frames. Most of a resized frame is cut away by the crop that
follows, and three of the last steps only carry pixels from one array to the next. Here a crop's pixels alone are made,
and every picture is written once, where the batch wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from mmseg.datasets.batches import new_tensor
from mmseg.datasets.transforms.colour import Normalize, PhotoMetricDistortion
from mmseg.datasets.transforms.formatting import PackClip
from mmseg.datasets.transforms.geometry import PICTURES, Pad, RandomCrop, Resize, resize_image
from mmseg.structures import Padded, Resized, Size

Transform = Callable[[dict[str, Any]], dict[str, Any]]


def fused(transforms: Sequence[Transform]) -> list[Transform]:
    """`transforms`, with those that can be done together in one; subclasses of a user stay as they are."""
    steps, rest = [], list(transforms)
    while rest:
        kinds = [type(transform) for transform in rest[:4]]
        if kinds[:2] == [Resize, RandomCrop] and not rest[0].size_divisor:
            steps.append(ResizedCrop(*rest[:2]))
            rest = rest[2:]
            continue
        ends = {PhotoMetricDistortion: None, Normalize: None, Pad: None}
        number = 0
        for kind in ends:
            if number < len(kinds) and kinds[number] is kind:
                ends[kind], number = rest[number], number + 1
        if ends[Normalize] is not None and number < len(kinds) and kinds[number] is PackClip:
            steps.append(PackedColours(rest[: number + 1], *ends.values()))
            rest = rest[number + 1 :]
            continue
        steps.append(rest.pop(0))
    return steps


def _one_after_the_other(transforms: Sequence[Transform], results: dict[str, Any]) -> dict[str, Any]:
    for transform in transforms:
        results = transform(results)
    return results


# --- resize and crop --------------------------------------------------------------------------------------------------


def resized_window(image: np.ndarray, size: Size, corner: Size, crop: Size) -> np.ndarray:
    """A window of a bilinearly resized image: ``resize_image(image, size)[top : top + height, left : left + width]``.

    OpenCV computes a pixel from its place, the scale and two by two pixels of the source alone. So what lies below the
    window and to its right need not be there, as long as the scale is given as a number; what lies above it and to its
    left counts the places.
    """
    (height, width), (top, left) = image.shape[:2], corner
    bottom, right = min(top + crop[0], size[0]), min(left + crop[1], size[1])
    rows, columns = min(-(-bottom * height // size[0]) + 2, height), min(-(-right * width // size[1]) + 2, width)
    down, across = size[0] / height, size[1] / width
    whole = (rows, columns) == (height, width)
    copied = round(rows * down) == rows and round(columns * across) == columns  # OpenCV would not resize this part
    if whole or copied:
        return resize_image(image, size)[top:bottom, left:right]
    part = cv2.resize(image[:rows, :columns], None, fx=across, fy=down, interpolation=cv2.INTER_LINEAR)
    return part[top:bottom, left:right]


def nearest_sources(length: int, resized: int) -> np.ndarray:
    """Which of `length` positions OpenCV's nearest-neighbour resize to `resized` positions takes, int32."""
    positions = np.arange(length, dtype=np.int32)[None]
    return cv2.resize(positions, (resized, 1), interpolation=cv2.INTER_NEAREST)[0]


def grid_of(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``labels[rows][:, columns]`` of (h, w) uint8, copied row by row, and column by column of the transposed array:
    a third of the time of copying pixel by pixel."""
    fewer = len(rows) < len(labels)
    if fewer:
        labels = labels.take(rows, axis=0)
    labels = cv2.transpose(cv2.transpose(labels).take(columns, axis=0))
    return labels if fewer else labels.take(rows, axis=0)


class ResizedCrop:
    """:class:`Resize` and :class:`RandomCrop`, of which the resized frames exist where they are needed."""

    def __init__(self, resize: Resize, crop: RandomCrop) -> None:
        self.resize, self.crop = resize, crop

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        arrays = [array for key in (*PICTURES, "gt") if key in results for array in results[key]]
        before = results["img"][-1].shape[:2]
        if "given" in results or any(array.shape[:2] != before for array in arrays):
            return _one_after_the_other((self.resize, self.crop), results)
        [size] = self.resize.sizes(*before, self.resize.scale(results))
        results.setdefault("steps", []).append(Resized(before))
        self.resize.note(results["meta"], before, size, results["img"][-1].shape[2])
        sources = [nearest_sources(*lengths) for lengths in zip(before, size)]

        def window(labels: np.ndarray, corner: Size) -> np.ndarray:
            """The window at a corner of resized labels."""
            rows, columns = (s[start : start + n] for s, start, n in zip(sources, corner, self.crop.crop_size))
            top, left = rows[0], columns[0]
            part = labels[top : rows[-1] + 1, left : columns[-1] + 1]
            return grid_of(part, rows - top, columns - left)

        last = (lambda corner: window(results["gt"][-1], corner)) if "gt" in results else None
        corner = self.crop.corner(size, last, results["rng"])
        for key in PICTURES:
            if key in results:
                results[key] = [resized_window(image, size, corner, self.crop.crop_size) for image in results[key]]
        if "gt" in results:
            results["gt"] = [window(labels, corner) for labels in results["gt"]]
        shape = results["img"][-1].shape
        results["meta"].update(img_shape=shape, pad_shape=shape)
        return results


# --- colours, padding and packing -------------------------------------------------------------------------------------


class PackedColours:
    """The end of a train pipeline: :class:`PhotoMetricDistortion` and :class:`Pad`, if they are there,
    :class:`Normalize` and :class:`PackClip`. Every frame is written once to where the tensor of the clip has it."""

    def __init__(
        self,
        transforms: Sequence[Transform],
        distortion: PhotoMetricDistortion | None,
        normalize: Normalize,
        pad: Pad | None,
    ) -> None:
        self.transforms, self.distortion, self.normalize, self.pad = transforms, distortion, normalize, pad

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        kinds = [key for key in PICTURES if key in results]
        size, length = results["img"][-1].shape[:2], len(results["img"])
        shapes = {**dict.fromkeys(kinds, (*size, 3)), **({"gt": size} if "gt" in results else {})}
        alike = all(
            len(results[key]) == length
            and all(array.shape == shape and array.dtype == np.uint8 for array in results[key])
            for key, shape in shapes.items()
        )
        if not alike or "given" in results:  # grey frames, labels of the target alone: what a user's transforms make
            return _one_after_the_other(self.transforms, results)
        (height, width), channels = size, 3 * len(kinds)
        below, right = self.pad.margins(height, width) if self.pad else (0, 0)
        clip = new_tensor((length, channels, height + below, width + right), torch.float32)
        for number, key in enumerate(kinds):  # frames first, then the flow of them all: the order of the draws
            for image, out in zip(results.pop(key), clip.numpy()):
                drawn = self.distortion.draw(results["rng"]) if self.distortion else None
                image = image if drawn is None else drawn.colours(image)
                planes = out[3 * number : 3 * number + 3, :height, :width]
                self.normalize.planes(image, planes, None if drawn is None else drawn.after)
        results["img"] = clip
        if "gt" in results:
            truth = results["gt_semantic_seg"] = new_tensor((length, 1, *clip.shape[-2:]), torch.int64)
            for labels, out in zip(results.pop("gt"), truth.numpy()):
                out[0, :height, :width] = labels
        self._note(results, size, (below, right))
        return results

    def _note(self, results: dict[str, Any], size: Size, margins: Size) -> None:
        """Fill the margins, and say what was done."""
        self.normalize.note(results["meta"])
        if self.pad is None:
            return
        for key, value in (("img", self.pad.pad_val), ("gt_semantic_seg", self.pad.seg_pad_val)):
            if key in results and any(margins):
                results[key][..., size[0] :, :] = value
                results[key][..., size[1] :] = value
        results.setdefault("steps", []).append(Padded(size))
        results["meta"]["pad_shape"] = (*results["img"].shape[-2:], 3)
