"""Focal loss: pixels that are right already count little (arXiv:1708.02002, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.losses.base import PixelLoss, of_labels
from mmseg.models.losses.upsampled import pixel_sums
from mmseg.registry import MODELS
from mmseg.values import Fraction, NonNegativeFloat


@MODELS.register_module()
class FocalLoss(PixelLoss):
    """With p the probability of what is true: ``-alpha (1 - p) ** gamma log(p)``.

    Args:
        use_sigmoid: True takes every class for a yes or no of its own: the mean is over all pixels and classes, and
            "no" weighs ``1 - alpha``. False takes the softmax over the classes, and the mean over all pixels.
            Ignored pixels count in both denominators.
        gamma: 0 gives cross entropy.
        alpha: one for all classes, or one for each.
        kwargs: see :class:`~mmseg.models.losses.base.PixelLoss`.
    """

    own_name = "loss_focal"
    per_class = ("class_weight", "alpha")

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: NonNegativeFloat = 2.0,
        alpha: Fraction | Sequence[Fraction] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_sigmoid, self.gamma, self.alpha = use_sigmoid, gamma, alpha

    def forward(
        self, logits: Tensor, labels: Tensor, ignore_index: int = 255, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`PixelLoss.forward`."""
        of_rows = self._sigmoid if self.use_sigmoid else self._softmax

        def measure(z: Tensor, target: Tensor, factor: Tensor | None) -> Tensor:
            valid = target != ignore_index
            factor = valid.to(z.dtype) if factor is None else factor.to(z.dtype) * valid
            return of_rows(z, torch.where(valid, target, 0), factor)[None]

        sums, correct = pixel_sums(logits, labels, measure, weight)
        count = labels.numel() * (logits.shape[1] if self.use_sigmoid else 1)
        return self.loss_weight * sums.sum() / count, correct

    def _sigmoid(self, z: Tensor, target: Tensor, factor: Tensor) -> Tensor:
        """Of logits (K, rows, W), labels and weights (rows, W): the loss of "no" everywhere but at the label."""
        alpha, weight = self._of_classes(self.alpha, z), self._of_classes(self.class_weight, z)  # (K, 1, 1)
        yes, no = F.logsigmoid(z), F.logsigmoid(-z)  # log of p, if the label is this class and if it is not
        loss_no = -(1 - alpha) * torch.exp(self.gamma * yes) * no
        loss_yes = -alpha * torch.exp(self.gamma * no) * yes
        at_label = (weight * (loss_yes - loss_no)).gather(0, target[None])[0]
        return (((weight * loss_no).sum(0) + at_label) * factor).sum()

    def _softmax(self, z: Tensor, target: Tensor, factor: Tensor) -> Tensor:
        """Of logits (K, rows, W), labels and weights (rows, W)."""
        log_p = z.log_softmax(0).gather(0, target[None])[0]
        remainder = (-torch.expm1(log_p)).clamp(min=torch.finfo(z.dtype).tiny)  # 1 - p
        for numbers in (self.alpha, self.class_weight):
            if isinstance(numbers, Sequence):
                factor = factor * of_labels(numbers, target, z)
            elif numbers is not None:
                factor = factor * numbers
        return -(remainder**self.gamma * log_p * factor).sum()

    @staticmethod
    def _of_classes(numbers: float | Sequence[float] | None, z: Tensor) -> Tensor:
        values = [1.0] if numbers is None else numbers if isinstance(numbers, Sequence) else [numbers]
        return torch.as_tensor(values, dtype=z.dtype, device=z.device)[:, None, None]
