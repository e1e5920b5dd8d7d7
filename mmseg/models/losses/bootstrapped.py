"""Bootstrapped cross entropy: after a warm-up only the hardest pixels of a frame count, fewer and fewer of them."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.values import NonNegativeInt


class BootstrappedCrossEntropy:
    """Cross entropy of the share p of the pixels with the largest loss.

    Args:
        start_warm: iteration up to which all pixels count (p = 1).
        end_warm: iteration at which p has fallen, linearly, to `least`.
        least: p after that.

    Raises:
        ConfigError: the fall ends before it starts.
    """

    def __init__(
        self,
        start_warm: NonNegativeInt = 3000,
        end_warm: NonNegativeInt = 15000,
        least: Annotated[float, Gt(0), Le(1)] = 0.15,
    ) -> None:
        if end_warm <= start_warm:
            raise ConfigError(
                f"start_warm={start_warm}, end_warm={end_warm}", "start_warm before end_warm", "exchange them"
            )
        self.start_warm, self.end_warm, self.least = start_warm, end_warm, least

    def share(self, iteration: int) -> float:
        """p, the share of the pixels that count at an iteration."""
        if iteration < self.start_warm:
            return 1.0
        if iteration > self.end_warm:
            return self.least
        return self.least + (1 - self.least) * (self.end_warm - iteration) / (self.end_warm - self.start_warm)

    def __call__(self, logits: Tensor, labels: Tensor, iteration: int) -> Tensor:
        """The losses (n,) of n frames, each the mean over the pixels of that frame that count.

        Args:
            logits: (n, K, H, W); -inf for a class that a frame does not have.
            labels: (n, H, W) int64.
            iteration: of the training, counted from 0.
        """
        losses = F.cross_entropy(logits, labels, reduction="none").flatten(1)  # (n, H * W)
        if iteration < self.start_warm:
            return losses.mean(1)
        count = int(losses.shape[1] * self.share(iteration))
        return torch.topk(losses, count, dim=1, sorted=False).values.mean(1)
