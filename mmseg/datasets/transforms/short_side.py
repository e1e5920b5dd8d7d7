"""Resizing by the shorter side, as YouTube-VOS is tested."""

from __future__ import annotations

from typing import Any, Literal

import cv2

from mmseg.datasets.transforms.geometry import MASKS, resize_labels
from mmseg.registry import TRANSFORMS
from mmseg.structures import Resized, Size
from mmseg.values import PositiveInt

_INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


@TRANSFORMS.register_module()
class ResizeShortSide:
    """Resize a clip until its shorter side has `size` pixels; one that has them stays as it is.

    Nothing is clamped and nothing antialiased: after Normalize, the bicubic one (a = -0.75) is that of the published
    tests on YouTube-VOS (GSFM specification, section 5).

    Args:
        size: of the shorter side; the other one is rounded down.
        interpolation: of frames; masks take the nearest pixel.
    """

    def __init__(self, size: PositiveInt = 480, interpolation: Literal["bilinear", "bicubic"] = "bicubic") -> None:
        self.size, self.interpolation = size, _INTERPOLATIONS[interpolation]

    def new_size(self, height: int, width: int) -> Size:
        """(height, width) after the resize."""
        if height < width:
            return self.size, self.size * width // height
        return self.size * height // width, self.size

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        before = results["img"][-1].shape[:2]
        if min(before) == self.size:
            return results
        size = self.new_size(*before)
        results.setdefault("steps", []).append(Resized(before))
        results["img"] = [cv2.resize(image, size[::-1], interpolation=self.interpolation) for image in results["img"]]
        for key in MASKS & results.keys():
            results[key] = [resize_labels(labels, size) for labels in results[key]]
        results["meta"].update(img_shape=results["img"][-1].shape, pad_shape=results["img"][-1].shape)
        return results
