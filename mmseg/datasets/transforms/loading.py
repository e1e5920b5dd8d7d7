"""From paths to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmseg.datasets.labels import IGNORED
from mmseg.errors import ConfigError, DataError
from mmseg.images import check_flow_size, check_same_size, read_frame
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadFrames:
    """Decode the frames of a clip: ``frames`` (paths) -> ``img``, list of (H, W, 3) uint8 BGR.

    Where the data set gives ``flows``, pictures of optical flow, they become ``flow`` in the same way.

    Raises:
        DataError: a file that is missing, damaged, or of another size than the others of the clip or than its frame.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        loaded = {}  # a path may stand in a clip more than once
        for path in results["frames"]:
            if path not in loaded:
                loaded[path] = read_frame(path)
        results["img"] = images = [loaded[path] for path in results["frames"]]
        for path, image in zip(results["frames"], images):
            if image.shape != images[-1].shape:
                raise DataError(
                    f"{path}: frame of {image.shape[1]}x{image.shape[0]} pixels in a clip whose target "
                    f"{results['frames'][-1]} has {images[-1].shape[1]}x{images[-1].shape[0]}",
                    "all frames of a video to have one size",
                    "split the video where its size changes, or resize its frames",
                )
        if results.get("flows") is not None:
            results["flow"] = [read_frame(path) for path in results["flows"]]
            for path, image, flow in zip(results["flows"], images, results["flow"]):
                check_flow_size(image, flow, path)
        shape = images[-1].shape
        results["meta"].update(ori_shape=shape, img_shape=shape, pad_shape=shape)
        return results


@TRANSFORMS.register_module()
class LoadLabels:
    """Read the masks of a clip: ``labels`` (paths) -> ``gt``, list of (H, W) uint8 network labels.

    A frame without mask (None) is ignored everywhere.

    Args:
        reduce_zero_label: whether 0 is ignored and v is class v - 1. The data set decides; what is given here only
            confirms it.

    Raises:
        ConfigError: the data set says otherwise.
        DataError: a mask that is missing, damaged, coloured, of another size than its frame, or with values out of
            range.
    """

    def __init__(self, reduce_zero_label: bool | None = None) -> None:
        self.reduce_zero_label = reduce_zero_label

    def check_agrees(self, reduce_zero_label: bool, place: str = "pipeline") -> None:
        """Raise ConfigError if the data set's switch is not the one given here.

        Args:
            reduce_zero_label: of the data set.
            place: where this transform stands in the config.
        """
        if self.reduce_zero_label not in (None, reduce_zero_label):
            raise ConfigError(
                f"reduce_zero_label={reduce_zero_label} in the data set, reduce_zero_label={self.reduce_zero_label} in "
                f"{place} (LoadLabels)",
                "one value, or training and evaluation would use different labels",
                "set reduce_zero_label in the data set, for train, val and test, and remove it from LoadLabels",
            )

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if results["labels"] is None:
            raise ConfigError("LoadLabels for a data set without labels", "a split with labels", "drop LoadLabels")
        self.check_agrees(results["reduce_zero_label"])
        read, loaded = results["read_labels"], {}
        for path, frame in zip(results["labels"], results["img"]):
            if path is None:
                continue
            if path not in loaded:
                loaded[path] = read(path)
                check_same_size(frame, loaded[path], path)
        nothing = np.full(results["img"][-1].shape[:2], IGNORED, np.uint8)
        results["gt"] = [nothing if path is None else loaded[path] for path in results["labels"]]
        return results
