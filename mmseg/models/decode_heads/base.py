"""What all heads share: one feature map per frame out of four, and a classifier on it (SegFormer's decoder)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.cpu.linear import linear_of_samples
from mmseg.models.layers import full_precision
from mmseg.models.layers.linear import pointwise_conv
from mmseg.models.layers.norms import norm_affine
from mmseg.models.layers.resize import add_resized
from mmseg.models.losses import HeadLoss
from mmseg.values import Byte, Channels, Fraction, Keys, NumClasses, PositiveInt


class DecoderParams(Keys, total=False):
    """Further sizes of a head, in the place where published configs have them."""

    embed_dim: PositiveInt


class LevelProjection(nn.Module):
    """Linear layer on every position of a map, which is applied as part of :class:`FoldedFuse`."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, dim)


class FuseConv(nn.Module):
    """1x1 convolution without bias, norm, ReLU; the convolution is part of :class:`FoldedFuse`."""

    def __init__(self, in_channels: int, dim: int, norm: Literal["BN", "GN"]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 1, bias=False)
        if norm == "BN":
            self.bn = nn.BatchNorm2d(dim)
        else:
            self.gn = nn.GroupNorm(1, dim)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    @property
    def norm(self) -> nn.Module:
        return self.bn if hasattr(self, "bn") else self.gn

    def forward(self, x: Tensor, norm: bool) -> Tensor:
        """What comes after the convolution; `norm` False if the norm is folded as well."""
        return F.relu(self.norm(x) if norm else x, inplace=True)


@dataclass(frozen=True)
class FoldedFuse:
    """Projection and fuse convolution of each level as one matrix; batch norm too where `norm` is False."""

    weights: list[Tensor]  # (dim, C_s) for s = 1..4
    bias: Tensor  # (dim,)
    norm: bool  # whether the norm has still to be applied to the sum


class FusionHead(nn.Module):
    """Per-frame features and per-frame prediction (SegFormer, and sections 3 of CFFM and MRCFA).

    Each of the four maps is projected to `embed_dim` channels, resized to the finest one and concatenated, coarse
    to fine; a 1x1 convolution with norm and ReLU gives the frame's feature F, a 1x1 classifier its logits A.

    Args:
        in_channels: channels of the maps of strides 4, 8, 16, 32.
        channels: sizes `conv_seg`, which no head uses; it is in the published files.
        num_classes: K.
        decoder_params: ``dict(embed_dim=256, ...)``.
        dropout_ratio: channel dropout before the classifier, 0 allowed.
        in_index: must select the four maps in order.
        feature_strides: of published configs; must be those of four maps, finest first.
        loss_decode: config of the loss, or a list of them; default: cross entropy.
        sampler: config of what chooses the pixels that the losses see, ``dict(type='OHEMPixelSampler', ...)``.
        ignore_index: label of pixels without a class.
        fuse_norm: ``'BN'`` (synchronised in multi-process training on GPUs) or ``'GN'`` (one group).
        align_corners: must be False.

    Attributes:
        segmentor: the segmentor that it belongs to.
        compiled_methods: names of the methods that ``compile=True`` compiles; they take and give tensors and numbers.
        compiled_constants: functions that these ask, whose answers do not change; else every question cuts a graph.
        context_keys: entries of a training batch, besides images and labels, that :meth:`loss` takes as arguments.
        frozen_backbone: the backbone runs without a graph in training.
        train_frames: frames of a clip that :meth:`loss` needs.

    Raises:
        ConfigError: a value that cannot work.
    """

    segmentor = "FrameSegmentor"
    compiled_methods: tuple[str, ...] = ("forward",)
    compiled_constants: tuple[Callable[..., Any], ...] = ()
    context_keys: tuple[str, ...] = ()
    frozen_backbone = False
    train_frames = slice(None)

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        decoder_params: DecoderParams | None = None,
        dropout_ratio: Fraction = 0.1,
        in_index: Sequence[int] = (0, 1, 2, 3),
        feature_strides: Sequence[PositiveInt] = (4, 8, 16, 32),
        loss_decode: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        sampler: Mapping[str, Any] | None = None,
        ignore_index: Byte = 255,
        fuse_norm: Literal["BN", "GN"] = "BN",
        align_corners: Literal[False] = False,
    ) -> None:
        super().__init__()
        _check(in_index, feature_strides)
        self.in_channels, self.num_classes, self.ignore_index = tuple(in_channels), num_classes, ignore_index
        self.embed_dim = dim = (decoder_params or {}).get("embed_dim", 256)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)  # unused, part of the published files
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)
        c1, c2, c3, c4 = self.in_channels
        self.linear_c4 = LevelProjection(c4, dim)
        self.linear_c3 = LevelProjection(c3, dim)
        self.linear_c2 = LevelProjection(c2, dim)
        self.linear_c1 = LevelProjection(c1, dim)
        self.linear_fuse = FuseConv(4 * dim, dim, fuse_norm)
        self.linear_pred = nn.Conv2d(dim, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout_ratio)
        if loss_decode is None:
            loss_decode = dict(type="CrossEntropyLoss")
        self.loss_decode = HeadLoss(loss_decode, num_classes, ignore_index, sampler)

    @property
    def projections(self) -> list[nn.Linear]:
        """The linear layers of levels 1..4."""
        return [level.proj for level in (self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4)]

    def fold_fuse(self) -> FoldedFuse:
        """Projections and fuse convolution as one matrix per level, and batch norm with them in eval mode.

        1x1 convolutions commute with bilinear resizing (its weights sum to 1), so each level can be mixed at its
        own size and the results added: the concatenated map never exists. Gradients pass through.
        """
        with full_precision(self.linear_pred.weight):
            blocks = self.linear_fuse.conv.weight.flatten(1).chunk(4, dim=1)  # levels 4, 3, 2, 1; each (dim, dim)
            weights = [block @ linear.weight for block, linear in zip(reversed(blocks), self.projections)]
            bias = sum(block @ linear.bias for block, linear in zip(reversed(blocks), self.projections))
            norm = self.linear_fuse.norm
            folds_norm = not isinstance(norm, nn.GroupNorm) and not norm.training
            if folds_norm:
                scale, shift = norm_affine(norm)  # (dim,)
                weights = [scale[:, None] * weight for weight in weights]
                bias = bias * scale + shift
        return FoldedFuse(weights, bias, norm=not folds_norm)

    def fold(self) -> Any:
        """Eval-only weights, computed once for all streams and passed to the methods that use them."""
        return self.fold_fuse()

    def fuse(self, feats: Sequence[Tensor], folded: FoldedFuse | None = None) -> Tensor:
        """The frames' features F (n, dim, h, w) from their maps [(n, C_s, h_s, w_s)], finest first.

        Args:
            folded: result of :meth:`fold_fuse` if it is at hand.
        """
        folded = folded or self.fold_fuse()
        biases = [folded.bias, *[None] * (len(feats) - 1)]
        finest, *others = map(pointwise_conv, feats, folded.weights, biases)
        return self.linear_fuse(add_resized(finest, others), folded.norm)

    def frame_logits(self, fused: Tensor) -> Tensor:
        """The per-frame prediction A (n, K, h, w) from F (n, dim, h, w)."""
        weight, bias = self.linear_pred.weight.flatten(1), self.linear_pred.bias
        if not (self.training and self.dropout.p):
            return pointwise_conv(fused, weight, bias)
        # whole channels are dropped, which the weights do for each frame, and no second map is made and kept
        kept = self.dropout(fused.new_ones(len(fused), fused.shape[1], 1, 1)).flatten(1)  # (n, dim)
        tokens = fused.permute(0, 2, 3, 1).flatten(1, 2)  # (n, h * w, dim)
        logits = linear_of_samples(tokens, weight * kept[:, None], bias)  # (n, h * w, K)
        return logits.unflatten(1, fused.shape[-2:]).permute(0, 3, 1, 2)


def _check(in_index: Sequence[int], feature_strides: Sequence[int]) -> None:
    if list(in_index) != [0, 1, 2, 3]:
        raise ConfigError(f"in_index={list(in_index)}", "[0, 1, 2, 3]", "give the four maps of the backbone in order")
    if list(feature_strides) != [4, 8, 16, 32]:
        raise ConfigError(
            f"feature_strides={list(feature_strides)}",
            "[4, 8, 16, 32]; maps are taken at the sizes that they have",
            "leave feature_strides out",
        )
