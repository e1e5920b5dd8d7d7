"""From arrays to the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Len

from mmseg.datasets.batches import new_tensor
from mmseg.errors import ConfigError
from mmseg.registry import TRANSFORMS


def to_tensor(*kinds: Sequence[np.ndarray]) -> torch.Tensor:
    """T frames (H, W, 3), and T further pictures of each kind -> (T, 3 * kinds, H, W) float32."""
    height, width, channels = kinds[0][-1].shape
    clip = new_tensor((len(kinds[0]), channels * len(kinds), height, width), torch.float32)
    for number, images in enumerate(kinds):
        for out, image in zip(clip.numpy()[:, channels * number : channels * (number + 1)], images):
            out[...] = image.transpose(2, 0, 1)
    return clip


def _packed(results: dict[str, Any]) -> torch.Tensor:
    """The frames of `results`, and their optical flow where there is some, which is taken out."""
    return to_tensor(results["img"], *([results.pop("flow")] if "flow" in results else []))


@TRANSFORMS.register_module()
class ImageToTensor:
    """``img``: list of frames -> (T, 3, H, W) float32 tensor; (T, 6, H, W) with those of ``flow``.

    Args:
        keys: accepted for official configs; must be ['img'].
    """

    def __init__(self, keys: Annotated[Sequence[Literal["img"]], Len(1, 1)] = ("img",)) -> None:
        self.keys = keys

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        results["img"] = _packed(results)
        return results


@TRANSFORMS.register_module()
class PackClip:
    """``img`` -> (T, 3 or, with ``flow``, 6, H, W) float32 and ``gt`` -> ``gt_semantic_seg`` (T, 1, H, W) int64."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        results["img"] = _packed(results)
        if "gt" in results:
            results["gt_semantic_seg"] = torch.from_numpy(np.stack(results.pop("gt"))[:, None].astype(np.int64))
        return results


@TRANSFORMS.register_module()
class Collect:
    """Keep what goes into a batch: the `keys`, and ``img_metas``.

    Args:
        keys: 'img', 'gt_semantic_seg'.
        meta_keys: entries of ``img_metas``; None keeps all. The video and the file name are always there.
    """

    def __init__(self, keys: Annotated[Sequence[str], Len(1)], meta_keys: Sequence[str] | None = None) -> None:
        self.keys, self.meta_keys = list(keys), meta_keys

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        collected = {}
        for key in self.keys:
            if key not in results:
                raise ConfigError(
                    f"Collect: no {key!r} in the results (there are {sorted(results)})",
                    "a key that the transforms before it make",
                    "add LoadLabels and PackClip for 'gt_semantic_seg'" if key == "gt_semantic_seg" else "fix keys",
                )
            collected[key] = results[key]
        meta = results["meta"]
        wanted = meta if self.meta_keys is None else ["video", "filename", *self.meta_keys]
        collected["img_metas"] = {key: meta[key] for key in wanted if key in meta}
        return collected
