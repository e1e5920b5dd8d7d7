"""The losses of GSFM on clips of three frames (specification, section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.errors import DataError
from mmseg.models.layers import full_precision
from mmseg.models.losses.bootstrapped import BootstrappedCrossEntropy
from mmseg.models.losses.boundary_loss import boundary_loss
from mmseg.registry import check_arguments

_DIVISOR = 16  # of the sides of a frame


class Segmented(NamedTuple):
    """Predictions of the k objects of B frames."""

    logits: Tensor  # (B, k + 1, H, W), background first
    probabilities: Tensor  # (B, k, H, W), without the background
    boundaries: Tensor  # (B, k, H, W) logits


class Clip(NamedTuple):
    """A batch as the losses need it."""

    frames: Tensor  # (B, 3, 3, H, W)
    labels: Tensor  # (B, 3, H, W)
    masks: Tensor  # (B, 3, k, H, W), that of object 1 may be soft
    selector: Tensor  # (B, k)

    @classmethod
    def of(cls, batch: Mapping[str, Any], num_objects: int) -> Clip:
        """The clips of a batch, see :meth:`GSFM.loss`. Raises DataError for clips that cannot be."""
        frames, labels = batch["img"], batch["gt_semantic_seg"][:, :, 0]
        height, width = frames.shape[-2:]
        if frames.shape[1] != 3 or height % _DIVISOR or width % _DIVISOR:
            raise DataError(
                f"a batch of clips {tuple(frames.shape)}",
                f"three frames each, sides that are multiples of {_DIVISOR}: (B, 3, 3, H, W)",
                "crop the clips of data.train to such a size",
            )
        masks = torch.stack([labels == number for number in range(1, num_objects + 1)], dim=2).to(frames.dtype)
        if "gt" in batch:
            masks = torch.cat([batch["gt"].to(frames.dtype), masks[:, :, 1:]], dim=2)
        if "selector" in batch and num_objects > 1:
            selector = batch["selector"].to(frames.dtype)
        else:
            selector = (masks[:, 0].flatten(2).amax(2) > 0).to(frames.dtype)
        selector = torch.cat([torch.ones_like(selector[:, :1]), selector[:, 1:]], dim=1)
        return cls(frames, labels, masks, selector)


class ClipLoss:
    """Mask and boundary losses of frames 1 and 2 of a clip.

    Args:
        bootstrap: arguments of :class:`BootstrappedCrossEntropy`.
        boundary_weight: factor of the boundary loss.
    """

    def __init__(self, bootstrap: Mapping[str, Any], boundary_weight: float) -> None:
        arguments = check_arguments(BootstrappedCrossEntropy, bootstrap, "model.bootstrap")
        self.cross_entropy, self.boundary_weight = BootstrappedCrossEntropy(**arguments), boundary_weight

    def __call__(self, predicted: Sequence[Segmented], clip: Clip, iteration: int) -> dict[str, Tensor]:
        """``loss_1``, ``loss_2``, ``p`` and the pixels of intersections and unions, see :meth:`GSFM.loss`.

        Args:
            predicted: of frames 1 and 2.
        """
        losses, counts = {}, {}
        for t, frame in enumerate(predicted, start=1):
            with full_precision(clip.frames):
                losses[f"loss_{t}"] = self._frame_loss(frame, clip, t, iteration)
            for name, count in _overlaps(frame.probabilities.detach(), clip.masks[:, t]).items():
                counts[name] = counts.get(name, 0) + count
        p = torch.tensor(self.cross_entropy.share(iteration), device=clip.frames.device)
        return {**losses, "p": p, **counts}

    def _frame_loss(self, predicted: Segmented, clip: Clip, t: int, iteration: int) -> Tensor:
        """The mean over the clips for frame `t`."""
        absent = F.pad(clip.selector, (1, 0), value=1.0) < 0.5  # (B, k + 1)
        logits = predicted.logits.masked_fill(absent[:, :, None, None], -torch.inf)
        mask_losses = self.cross_entropy(logits, clip.labels[:, t], iteration)
        shape, boundaries = clip.selector.shape, predicted.boundaries
        boundaries = boundaries if boundaries.dtype is torch.float64 else boundaries.float()
        boundary = boundary_loss(boundaries.flatten(0, 1), clip.masks[:, t].flatten(0, 1).to(boundaries.dtype))
        boundary = (boundary.view(shape) * clip.selector).sum(1) / clip.selector.sum(1)
        return (mask_losses + self.boundary_weight * boundary).mean()


def _overlaps(probabilities: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Pixels in intersection and union of predicted and true masks (B, k, H, W), of each object in all clips."""
    predicted, true = probabilities > 0.5, masks > 0.5
    counts = {}
    for number, prefix in enumerate(("", "sec_")[: masks.shape[1]]):
        one, other = predicted[:, number], true[:, number]
        counts[f"hide_iou/{prefix}i"] = (one & other).sum().to(masks.dtype)
        counts[f"hide_iou/{prefix}u"] = (one | other).sum().to(masks.dtype)
    return counts
