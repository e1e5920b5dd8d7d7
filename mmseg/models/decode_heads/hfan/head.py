"""HFAN's head (arXiv:2207.08485): frame and flow are fused at every stage, then decoded as in SegFormer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.cpu.pieces import tokens_in_slices
from mmseg.models.decode_heads.base import FoldedFuse, FusionHead
from mmseg.models.decode_heads.hfan.adaptation import (
    FoldedBranch,
    adapt,
    folded_adapt,
    local_branch,
    pooled_branch,
)
from mmseg.models.decode_heads.hfan.alignment import REGIONS, ContextAlignment, FoldedAlignment, region_context
from mmseg.models.decode_heads.hfan.layers import Affine, ConvReLU
from mmseg.registry import MODELS
from mmseg.values import Channels, NumClasses, PositiveInt

SelectMethod = Literal["im", "fw", "base", "fam", "fat", "hfan"]
BLOCKS = ("fam", "fat", "hfan")  # methods with weights of their own, which are called after them
_INNER = 16  # width inside the blocks, for stages of multiples of it


class FusionBlock(nn.Module):
    """One stage: the features of the frame and those of its flow become one map.

    Args:
        channels: C of the stage.
        aligns: align both streams first.
        adapts: weigh them per position and channel, else add them.
    """

    def __init__(self, channels: int, aligns: bool, adapts: bool) -> None:
        super().__init__()
        self.aligns, self.adapts = aligns, adapts
        inner = channels // max(channels // _INNER, 1)
        if adapts:
            self.ca_layers = local_branch(channels, inner)
            self.pa_layers = pooled_branch(channels, inner)
        if aligns:
            self.poc = ContextAlignment(channels, inner)
            self.object_pred = ConvReLU(channels, REGIONS)

    def forward(self, im: Tensor, fw: Tensor) -> Tensor:
        """Frame and flow features (B, C, h, w) -> (B, C, h, w)."""
        im, fw = self.align(im, fw)
        if not self.adapts:
            return im + fw
        total = im + fw
        return adapt(im, fw, self.ca_layers(total), self.pa_layers(total))

    def align(self, im: Tensor, fw: Tensor) -> tuple[Tensor, Tensor]:
        """Both aligned, if the block does that."""
        if not self.aligns:
            return im, fw
        # two calls: in training every norm takes the statistics of each stream by itself, and counts both
        context = region_context(im, self.object_pred(im))  # (B, C, 2, 1)
        return self.poc(im, context), self.poc(fw, context)

    def fold(self) -> FoldedBlock:
        """The block in eval mode."""
        return FoldedBlock(
            self.object_pred.fold() if self.aligns else None,
            self.poc.fold() if self.aligns else None,
            FoldedBranch.of(self.ca_layers) if self.adapts else None,
            FoldedBranch.of(self.pa_layers) if self.adapts else None,
        )


@dataclass(frozen=True)
class FoldedBlock:
    """:class:`FusionBlock` in eval mode, both streams as one batch of tokens."""

    regions: Affine | None
    alignment: FoldedAlignment | None
    local: FoldedBranch | None
    pooled: FoldedBranch | None

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps (2B, C, h, w), all frames first, then all flows -> (B, C, h, w)."""
        tokens = maps.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # (2B, L, C)
        if self.alignment is not None:
            frames = tokens[: len(tokens) // 2]
            weights = F.relu(self.regions(frames)).softmax(dim=1)  # (B, L, 2)
            regions = self.alignment.regions(weights.to(frames.dtype).transpose(1, 2) @ frames)
            tokens = tokens_in_slices(self.alignment.align, tokens, *(part.repeat(2, 1, 1) for part in regions))
        im, fw = tokens.chunk(2)
        if self.local is None:
            out = im + fw
        else:
            pooled = self.pooled(im.mean(dim=1, keepdim=True) + fw.mean(dim=1, keepdim=True))  # (B, 1, C)
            out = tokens_in_slices(self._adapt, im, fw, pooled)
        return out.unflatten(1, maps.shape[2:]).permute(0, 3, 1, 2)

    def _adapt(self, im: Tensor, fw: Tensor, pooled: Tensor) -> Tensor:
        return folded_adapt(im, fw, pooled, self.local)


@dataclass(frozen=True)
class FoldedHead:
    """Everything of the head that depends on the weights alone."""

    fuse: FoldedFuse
    blocks: Sequence[FoldedBlock]


@MODELS.register_module()
class HFANHead(FusionHead):
    """Maps of frames and flows to logits of background and object.

    Args:
        select_method: what is decoded at every stage: 'im' the frame, 'fw' the flow, 'base' their sum, 'fam' the sum of
            the aligned ones, 'fat' the adaptively weighted ones, 'hfan' these after alignment.
        kwargs: see :class:`FusionHead`.

    Attributes:
        stream: 0 if only the frame is looked at, 1 if only the flow, None if both are.
    """

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        select_method: SelectMethod = "hfan",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.select_method = select_method
        self.stream = {"im": 0, "fw": 1}.get(select_method)
        if select_method in BLOCKS:
            for s, width in enumerate(self.in_channels, start=1):
                self.add_module(
                    f"{select_method}{s}", FusionBlock(width, select_method != "fat", select_method != "fam")
                )

    @property
    def blocks(self) -> list[FusionBlock]:
        """Those of stages 1..4; none where there are none."""
        return [getattr(self, f"{self.select_method}{s}") for s in (1, 2, 3, 4)] if self.select_method in BLOCKS else []

    def fold(self) -> FoldedHead:
        """See :meth:`FusionHead.fold`."""
        return FoldedHead(self.fold_fuse(), [block.fold() for block in self.blocks])

    def fuse_streams(
        self, feats: Sequence[Tensor], folded: FoldedHead | None = None, batch_size: int | None = None
    ) -> list[Tensor]:
        """One map (B, C_s, h_s, w_s) for every stage.

        Args:
            feats: [(2B, C_s, h_s, w_s)], all frames first, then all flows; B maps of what `stream` names may do.
            folded: result of :meth:`fold`, in eval mode.
            batch_size: B; default: half of what `feats` hold.
        """
        if len(feats[0]) == batch_size:
            return list(feats)
        if self.stream is not None:
            return [maps.chunk(2)[self.stream] for maps in feats]
        if not self.blocks:
            return [sum(maps.chunk(2)) for maps in feats]
        if folded is not None:
            return [block(maps) for block, maps in zip(folded.blocks, feats)]
        return [block(*maps.chunk(2)) for block, maps in zip(self.blocks, feats)]

    def stages(self, feats: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """For every stage, by name, both streams before and after the alignment, and what is decoded: (B, C, h, w)."""
        found = []
        for number, (maps, fused) in enumerate(zip(feats, self.fuse_streams(feats))):
            im, fw = maps.chunk(2)
            stage = {"frame": im, "flow": fw}
            if self.blocks and self.blocks[number].aligns:
                stage["frame aligned"], stage["flow aligned"] = self.blocks[number].align(im, fw)
            found.append({**stage, "fused": fused})
        return found

    def fuse(self, feats: Sequence[Tensor], folded: FoldedHead | None = None, batch_size: int | None = None) -> Tensor:
        """The fused feature (B, dim, h, w). Args: see :meth:`fuse_streams`."""
        if folded is None and not self.training and not torch.is_grad_enabled():
            folded = self.fold()
        return super().fuse(self.fuse_streams(feats, folded, batch_size), folded and folded.fuse)

    def forward(
        self, feats: Sequence[Tensor], batch_size: int | None = None, num_clips: int = 1, **context: Any
    ) -> Tensor:
        """Logits (B, K, h, w) of all frames; `feats` as for :meth:`fuse_streams`."""
        return self.frame_logits(self.fuse(feats, batch_size=batch_size and batch_size * num_clips))

    def loss(
        self, feats: Sequence[Tensor], batch_size: int, num_clips: int, labels: Tensor, **context: Any
    ) -> dict[str, Tensor]:
        """Mean cross entropy and accuracy in percent over all pixels of all frames; `labels` (B, T, 1, H, W)."""
        if batch_size * num_clips < 2 and any(block.adapts for block in self.blocks):
            raise ConfigError(
                f"a training batch of one frame for select_method {self.select_method!r}",
                "two or more in every process: norms of the pooled branch take the statistics of the frames",
                "raise data.samples_per_gpu",
            )
        losses, correct = self.loss_decode(self(feats, batch_size, num_clips), labels.flatten(0, 2))
        return {**losses, "acc_seg": 100 * correct / labels.numel()}
