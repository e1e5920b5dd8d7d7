"""From paths to arrays."""

from __future__ import annotations

from typing import Any

from mmseg.datasets.io import check_labels, check_same_size, read_frame, read_mask, reduce_labels
from mmseg.errors import ConfigError, DataError
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadFrames:
    """Decode the frames of a clip: ``frames`` (paths) -> ``img``, list of (H, W, 3) uint8 BGR.

    Raises:
        DataError: a file that is missing, damaged, or of another size than the others of the clip.
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
        shape = images[-1].shape
        results["meta"].update(ori_shape=shape, img_shape=shape, pad_shape=shape)
        return results


@TRANSFORMS.register_module()
class LoadLabels:
    """Read the masks of a clip: ``labels`` (paths) -> ``gt``, list of (H, W) uint8 network labels.

    Args:
        reduce_zero_label: map raw labels with :func:`mmseg.datasets.io.reduce_labels`; None does what the data set does
            in testing.

    Raises:
        DataError: a mask that is missing, damaged, coloured, of another size than its frame, or with values out of
            range.
    """

    def __init__(self, reduce_zero_label: bool | None = None) -> None:
        self.reduce_zero_label = reduce_zero_label

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if results["labels"] is None:
            raise ConfigError("LoadLabels for a data set without labels", "a split with labels", "drop LoadLabels")
        reduce = results["reduce_zero_label"] if self.reduce_zero_label is None else self.reduce_zero_label
        loaded = {}
        for path, frame in zip(results["labels"], results["img"]):
            if path not in loaded:
                mask = read_mask(path)
                check_same_size(frame, mask, path)
                loaded[path] = reduce_labels(mask) if reduce else mask
                check_labels(loaded[path], results["num_classes"], path, reduce)
        results["gt"] = [loaded[path] for path in results["labels"]]
        return results
