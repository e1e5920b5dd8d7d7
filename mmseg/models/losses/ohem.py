"""Online hard example mining: losses see the pixels that the network finds hardest (arXiv:1604.03540)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmseg.models.losses.upsampled import label_probabilities
from mmseg.registry import MODELS
from mmseg.values import Fraction, NonNegativeInt


@MODELS.register_module()
class OHEMPixelSampler(nn.Module):
    """Weights of 1 for the hard pixels of a batch, of 0 for the others.

    Args:
        thresh: pixels whose label has a lower probability are hard; None takes the `min_kept` hardest alone.
        min_kept: how many pixels of an image are kept at least, in the mean over the batch: the hardest, if fewer are
            below `thresh`.
    """

    def __init__(self, thresh: Fraction | None = None, min_kept: NonNegativeInt = 100_000) -> None:
        super().__init__()
        self.thresh, self.min_kept = thresh, min_kept

    @torch.no_grad()
    def forward(self, logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
        """Weights (n, H, W) float32 from logits (n, K, h, w), which are coarser than the labels (n, H, W)."""
        p = label_probabilities(logits, labels, ignore_index)  # infinity where there is no label
        values, order = p.flatten().sort(stable=True)
        kept = min(self.min_kept * len(labels), len(values))
        labelled = p.isfinite()
        if self.thresh is None:
            hardest = torch.zeros_like(values, dtype=torch.bool)
            hardest[order[:kept]] = True
            return (hardest.view_as(p) & labelled).float()
        last = (labelled.sum() - 1).clamp(min=0, max=kept)  # on the device: nothing waits for it
        threshold = values.gather(0, last[None]).clamp(min=self.thresh)
        return ((p < threshold) & labelled).float()
