"""CFFM: coarse-to-fine feature mining for video semantic segmentation (CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor, nn

from mmseg.clips import CFFM_DILATION
from mmseg.models.cpu.linear import linear
from mmseg.models.decode_heads.base import DecoderParams, FoldedFuse
from mmseg.models.decode_heads.cffm.focal import FocalDecoder, FoldedFocal, to_map, to_tokens
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.layers.resize import halve, resize, upsample_logits
from mmseg.registry import MODELS
from mmseg.values import Channels, NumClasses, PositiveInt

MIN_CLIPS = 3  # two references; the third is then the target itself


class CFFMParams(DecoderParams, total=False):
    embed_dim: Annotated[int, Gt(0), MultipleOf(8)]  # attention heads
    depths: PositiveInt  # focal blocks


class FoldedCFFM(NamedTuple):
    """Eval-only weights."""

    fuse: FoldedFuse
    focal: FoldedFocal


class TargetState(NamedTuple):
    """What the prediction of n frames needs of the frames themselves."""

    fused: Tensor  # F (n, C, h, w)
    half: Tensor  # G (n, C, h // 2, w // 2)


@MODELS.register_module()
class CFFMHead(ClipHead):
    """The target's feature at 1/8, before and after it has mined its references, classified together.

    References take the roles of the focal decoder by age: the oldest is seen most coarsely and widest (paper, section
    3.2; the losses are those of :class:`~mmseg.models.decode_heads.clip_head.ClipHead`).

    Args:
        in_channels, channels, num_classes, kwargs: see :class:`~mmseg.models.decode_heads.base.FusionHead`.
        num_clips: frames per clip, at least 3. References are frames 0, 1, 2 of the clip, whatever its length; in a
            clip of 3 the third is the target itself.
        decoder_params: ``dict(embed_dim=256, depths=2)``: channels and number of focal blocks.

    Raises:
        ConfigError: a value that cannot work.
    """

    default_dilation = CFFM_DILATION
    decode_reads = ("half",)
    single_reads = ("fused",)

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        num_clips: Annotated[int, Ge(MIN_CLIPS)] = 4,
        decoder_params: CFFMParams | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels, channels, num_classes, num_clips=num_clips, decoder_params=decoder_params, **kwargs
        )
        self.linear_pred2 = nn.Conv2d(2 * self.embed_dim, num_classes, 1)
        self.decoder_focal = FocalDecoder(self.embed_dim, (decoder_params or {}).get("depths", 2))

    @torch.no_grad()
    def cluster_input(self, feats: Sequence[Tensor]) -> Tensor:
        """The rows that prototypes are made of: G of n frames as (n * h2 * w2, C), frame by frame, row-major."""
        return to_tokens(halve(self.fuse(feats))).flatten(0, 1)

    # ------------------------------------------------------------------ training

    def predictions(
        self, feats: Sequence[Tensor], fused: Tensor, batch_size: int, num_clips: int, **context: Any
    ) -> Tensor:
        """P as (B, 1, K, h, w)."""
        half = halve(fused)
        frames = half.unflatten(0, (batch_size, num_clips)).unbind(1)  # T of (B, C, h2, w2)
        mined = self.decoder_focal.mine(frames)
        both = torch.cat([frames[-1], mined], 1)  # (B, 2C, h2, w2)
        return resize(self.linear_pred2(self.dropout(both)), fused.shape[-2:])[:, None]

    # ------------------------------------------------------------------ one frame after the other

    def fold(self) -> FoldedCFFM:
        """See :class:`FoldedCFFM`."""
        return FoldedCFFM(self.fold_fuse(), self.decoder_focal.fold())

    def embed(self, feats: Sequence[Tensor], folded: FoldedCFFM) -> TargetState:
        """F and G of n frames."""
        fused = self.fuse(feats, folded.fuse)
        return TargetState(fused, halve(fused))

    def remember(self, target: TargetState, folded: FoldedCFFM) -> Tensor:
        """The pooled maps (n, depth, W, 14, C) of n frames as references, for all blocks and roles."""
        return self.decoder_focal.reference_maps(to_tokens(target.half), *target.half.shape[-2:], folded.focal)

    def decode(self, target: TargetState, references: list[Tensor], folded: FoldedCFFM, **context: Any) -> Tensor:
        """P (B, K, h, w)."""
        return self._upsample(self._mined_logits(target, references, folded), target)

    def decode_single(self, target: TargetState, folded: FoldedCFFM) -> Tensor:
        """A (B, K, h, w)."""
        return self.frame_logits(target.fused)

    def _mined_logits(self, target: TargetState, references: list[Tensor], folded: FoldedCFFM) -> Tensor:
        """P before it is upsampled: (B, h2 * w2, K)."""
        before = to_tokens(target.half)  # (B, N, C)
        mined = self.decoder_focal.update(before.clone(), references[:3], *target.half.shape[-2:], folded.focal)
        weight_before, weight_mined = self.linear_pred2.weight.flatten(1).chunk(2, 1)  # (K, C) each
        return linear(before, weight_before, self.linear_pred2.bias) + linear(mined, weight_mined)

    def _upsample(self, logits: Tensor, target: TargetState) -> Tensor:
        """(B, h2 * w2, K) -> (B, K, h, w), class by class in memory as what follows wants it."""
        return upsample_logits(to_map(logits, *target.half.shape[-2:]).contiguous(), target.fused.shape[-2:])
