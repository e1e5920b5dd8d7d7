"""The per-frame baseline: SegFormer's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from mmseg.models.decode_heads.base import FusionHead
from mmseg.registry import MODELS
from mmseg.values import Channels, NumClasses, PositiveInt


@MODELS.register_module()
class SegFormerHead(FusionHead):
    """Each frame on its own: feature F, logits A (CFFM's spec of the per-frame branch).

    Args:
        fuse_norm: ``'GN'`` (one group, names ``linear_fuse.gn``) as in the published head, ``'BN'`` for the baseline
            that equals the per-frame branch of the clip heads.
        kwargs: see :class:`FusionHead`.
    """

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        fuse_norm: Literal["BN", "GN"] = "GN",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, fuse_norm=fuse_norm, **kwargs)

    def forward(
        self, feats: Sequence[Tensor], batch_size: int | None = None, num_clips: int | None = None, **context: Any
    ) -> Tensor:
        """Logits (n, K, h, w) of all n frames, in training and in eval mode."""
        return self.frame_logits(self.fuse(feats))

    def loss(
        self, feats: Sequence[Tensor], batch_size: int, num_clips: int, labels: Tensor, **context: Any
    ) -> dict[str, Tensor]:
        """Mean cross entropy and accuracy in percent over all pixels of all frames; `labels` (B, T, 1, H, W)."""
        losses, correct = self.loss_decode(self(feats), labels.flatten(0, 2))
        return {**losses, "acc_seg": 100 * correct / labels.numel()}
