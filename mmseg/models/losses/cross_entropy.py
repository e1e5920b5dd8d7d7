"""The loss entry of head configs."""

from __future__ import annotations

from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.losses.upsampled_ce import upsampled_cross_entropy
from mmseg.registry import MODELS
from mmseg.values import NonNegativeFloat


@MODELS.register_module()
class CrossEntropyLoss(nn.Module):
    """Cross entropy of logits that are coarser than the labels, averaged over **all** pixels.

    Args:
        use_sigmoid: only False (softmax over the classes) exists.
        loss_weight: factor of the loss.

    Raises:
        ConfigError: `use_sigmoid` is set.
    """

    def __init__(self, use_sigmoid: bool = False, loss_weight: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        if use_sigmoid:
            raise ConfigError("loss_decode.use_sigmoid=True", "use_sigmoid=False (softmax)", "remove the key")
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, labels: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
        """Loss and number of correctly classified pixels.

        Args:
            logits: (n, K, h, w), resized bilinearly to the size of the labels.
            labels: (n, H, W) int64; `ignore_index` contributes 0 and stays in the denominator.
        """
        loss, correct = upsampled_cross_entropy(logits, labels, ignore_index)
        return self.loss_weight * loss, correct
