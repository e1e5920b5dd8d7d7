"""Dice loss: overlap of prediction and label, class by class, whatever the size of a class (arXiv:1606.04797)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmseg.models.losses.base import PixelLoss
from mmseg.models.losses.upsampled import pixel_sums
from mmseg.registry import MODELS
from mmseg.values import NonNegativeFloat, PositiveFloat


@MODELS.register_module()
class DiceLoss(PixelLoss):
    """``1 - (2 sum(p t) + smooth) / (sum(p ** exponent) + sum(t ** exponent) + smooth)`` of softmax p and label t.

    The sums are over the labelled pixels of one image, for each class; the loss is the mean over classes and images.

    Args:
        smooth: keeps classes that are absent from an image from counting in full.
        exponent: of the probabilities in the denominator.
        kwargs: see :class:`~mmseg.models.losses.base.PixelLoss`; `class_weight` multiplies the terms of the mean.
    """

    own_name = "loss_dice"

    def __init__(self, smooth: NonNegativeFloat = 1.0, exponent: PositiveFloat = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smooth, self.exponent = smooth, exponent

    def forward(
        self, logits: Tensor, labels: Tensor, ignore_index: int = 255, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`PixelLoss.forward`."""

        def measure(z: Tensor, target: Tensor, factor: Tensor | None) -> Tensor:
            valid = target != ignore_index
            factor = valid.to(z.dtype) if factor is None else factor.to(z.dtype) * valid
            index = torch.where(valid, target, 0)
            p = z.softmax(0)  # (K, rows, W)
            hits = p.gather(0, index[None])[0] * factor
            both, of_labels = (z.new_zeros(len(z)).index_add(0, index.flatten(), x.flatten()) for x in (hits, factor))
            of_predictions = (p**self.exponent * factor).flatten(1).sum(1)
            return torch.cat([both, of_predictions + of_labels])  # (2K,)

        sums, correct = pixel_sums(logits, labels, measure, weight)
        both, separate = sums.chunk(2, dim=1)  # (n, K)
        loss = 1 - (2 * both + self.smooth) / (separate + self.smooth).clamp(min=torch.finfo(sums.dtype).tiny)
        if self.class_weight is not None:
            loss = loss * torch.as_tensor(self.class_weight, dtype=loss.dtype, device=loss.device)
        return self.loss_weight * loss.mean(), correct
