"""MRCFA: mining relations among cross-frame affinities (ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.clips import CFFM_DILATION
from mmseg.errors import ConfigError, DataError
from mmseg.models.cpu.linear import linear
from mmseg.models.decode_heads.base import DecoderParams, FoldedFuse
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.decode_heads.mrcfa.affinity import (
    SCORED_POSITIONS,
    CrossFrameAffinity,
    gather_tokens,
    map_to_tokens,
    rounds_products,
)
from mmseg.models.layers import full_precision
from mmseg.models.layers.resize import halve, resize, upsample_logits
from mmseg.registry import MODELS
from mmseg.values import Channels, NumClasses, PositiveInt

NUM_REFERENCES = 3
EMBED_DIM = 256
MAPS = ("c1", "c2", "c3", "c4")  # of the backbone, strides 4, 8, 16, 32


class SmallDecoder(nn.Module):
    """Channel dropout and a 1x1 classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        # the published rate, whatever the dropout_ratio of the head
        self.smalldecoder = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(dim, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.smalldecoder(x)


@dataclass(frozen=True)
class FoldedMRCFA:
    """Eval-only weights. Values are only gathered and classified, so their classifier is folded into them."""

    fuse: FoldedFuse
    value_weight: Tensor  # (K, dim, 4, 4): sr1_feat, then deco4 over the number of references
    value_bias: Tensor  # (K,)


@MODELS.register_module()
class MRCFAHead(ClipHead):
    """Affinities between the target and three references at three strides decide what the target gathers from them.

    The affinities of the selected reference tokens are refined (:mod:`mmseg.models.decode_heads.mrcfa.affinity`); their
    softmax over the tokens of a reference gathers that reference's values. The target is classified from the mean of
    what it gathered plus its own feature; in training also from each of the three gathered maps alone (paper, section
    3; the losses are those of :class:`ClipHead`).

    Args:
        in_channels, channels, num_classes, kwargs: see :class:`~mmseg.models.decode_heads.base.FusionHead`;
            ``decoder_params.embed_dim`` must be 256.
        num_clips: must be 4.
        backbone: 'b0' keeps 80 % of the tokens of a reference, any other name 50 %; 'b1' has the long refinement, any
            other name the short one. Independent of the type of the model's backbone.
        hypercorre: must be True; accepted for the sake of published configs, as is `cityscape`, which must be False.

    Raises:
        ConfigError: a value that cannot work.
    """

    default_dilation = CFFM_DILATION
    decode_reads = ("c2", "c3", "c4", "half")
    single_reads = ("fused",)
    compiled_constants = (rounds_products,)

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        num_clips: PositiveInt = NUM_REFERENCES + 1,
        backbone: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b1",
        hypercorre: bool = True,
        cityscape: bool = False,
        decoder_params: DecoderParams | None = None,
        **kwargs: Any,
    ) -> None:
        _check_settings(num_clips, hypercorre, cityscape, (decoder_params or {}).get("embed_dim", EMBED_DIM))
        super().__init__(
            in_channels, channels, num_classes, num_clips=num_clips, decoder_params=decoder_params, **kwargs
        )
        dim = self.embed_dim
        _, c2, c3, _ = self.in_channels
        self.deco1 = SmallDecoder(dim, num_classes)
        self.deco2 = SmallDecoder(dim, num_classes)
        self.deco3 = SmallDecoder(dim, num_classes)
        self.deco4 = SmallDecoder(dim, num_classes)
        self.hypercorre_module = CrossFrameAffinity(self.in_channels, backbone)
        self.sr2 = nn.Conv2d(c2, c2, 4, stride=4)
        self.sr3 = nn.Conv2d(c3, c3, 2, stride=2)
        self.sr1_feat = nn.Conv2d(dim, dim, 4, stride=4)

    # ------------------------------------------------------------------ training

    def predictions(
        self, feats: Sequence[Tensor], fused: Tensor, batch_size: int, num_clips: int, **context: Any
    ) -> Tensor:
        """O_1 .. O_4 as (B, 4, K, h, w): from the maps gathered from each reference, and the final one.

        Raises:
            DataError: an image size that the reference grid does not fit.
        """
        _require_size(feats)
        clips = (batch_size, num_clips)
        half = halve(fused).unflatten(0, clips)  # (B, T, dim, h8, w8)
        gathered = self._gather([feat.unflatten(0, clips) for feat in feats], half)  # (B, R, dim, h8, w8)
        outputs = [deco(gathered[:, r]) for r, deco in enumerate((self.deco1, self.deco2, self.deco3))]
        outputs.append(self.deco4(gathered.mean(1) + half[:, -1]))
        return torch.stack([resize(output, feats[0].shape[-2:]) for output in outputs], dim=1)

    def _gather(self, feats: Sequence[Tensor], half: Tensor) -> Tensor:
        """What the target gathers from each reference, (B, R, dim, h8, w8), from maps (B, T, C_s, h_s, w_s)."""
        _, c2, c3, c4 = feats
        references = (c[:, :-1].flatten(0, 1) for c in (c2, c3, c4))
        keys = self._reference_keys(*references)
        keys = {name: key.unflatten(0, (-1, NUM_REFERENCES)) for name, key in keys.items()}  # (B, R, tokens, C)
        affinity, index = self.hypercorre_module.attend(
            c2[:, -1], c3[:, -1], c4[:, -1], keys, _reference_grid(c3)
        )  # (B, h8*w8, R, s), (B, R, s)
        values = map_to_tokens(self.sr1_feat(half[:, :-1].flatten(0, 1))).unflatten(0, (-1, NUM_REFERENCES))
        values = gather_tokens(values, index)  # (B, R, s, dim)
        gathered = affinity.softmax(dim=3).transpose(1, 2) @ values  # (B, R, h8*w8, dim)
        return gathered.transpose(2, 3).unflatten(3, half.shape[-2:])

    def _reference_keys(self, c2: Tensor, c3: Tensor, c4: Tensor) -> dict[str, Tensor]:
        """Keys of n reference frames from their maps (n, C_s, h_s, w_s)."""
        return self.hypercorre_module.project_references(self.sr2(c2), self.sr3(c3), c4)

    # ------------------------------------------------------------------ one frame after the other

    def fold(self) -> FoldedMRCFA:
        """See :class:`FoldedMRCFA`."""
        values = self.sr1_feat
        with full_precision(values.weight):
            classifier = self.deco4.smalldecoder[1].weight.flatten(1) / NUM_REFERENCES  # (K, dim)
            weight = (classifier @ values.weight.flatten(1)).view(-1, *values.weight.shape[1:])
            bias = classifier @ values.bias
        return FoldedMRCFA(self.fold_fuse(), weight, bias)

    def embed(self, feats: Sequence[Tensor], folded: FoldedMRCFA) -> dict[str, Tensor]:
        """Maps of n frames: those of the backbone, F and its half."""
        fused = self.fuse(feats, folded.fuse)  # (n, dim, h4, w4)
        half = halve(fused)  # (n, dim, h4//2, w4//2)
        return {"c1": feats[0], "c2": feats[1], "c3": feats[2], "c4": feats[3], "fused": fused, "half": half}

    def remember(self, target: dict[str, Tensor], folded: FoldedMRCFA) -> dict[str, Tensor]:
        """Keys and classified values of n frames on the reference grid, N * (C2 + C3 + C4 + K) numbers per frame.

        Nothing where the image size allows no references.
        """
        feats = [target[name] for name in MAPS]
        if not _size_fits(feats):
            return {}
        values = F.conv2d(target["half"], folded.value_weight, folded.value_bias, stride=self.sr1_feat.stride)
        return {**self._reference_keys(*feats[1:]), "values": map_to_tokens(values)}

    def decode(
        self, target: dict[str, Tensor], references: list[dict[str, Tensor]], folded: FoldedMRCFA, **context: Any
    ) -> Tensor:
        """O_4 (B, K, h, w). Raises DataError for an image size that the reference grid does not fit."""
        _require_size([target[name] for name in MAPS])
        state = {name: torch.stack([r[name] for r in references], dim=1) for name in references[0]}  # (B, R, N, .)
        values = state.pop("values")  # (B, R, N, K)
        affinity, index = self.hypercorre_module.attend(
            target["c2"], target["c3"], target["c4"], state, _reference_grid(target["c3"])
        )  # (B, h8*w8, R, s), (B, R, s)
        classifier = self.deco4.smalldecoder[1]
        own = linear(map_to_tokens(target["half"]), classifier.weight.flatten(1), classifier.bias)  # (B, h8*w8, K)
        # a softmax for each reference, then one product over the kept tokens of all of them
        weights = affinity.softmax(dim=3).flatten(2)  # (B, h8*w8, R*s)
        logits = torch.baddbmm(own, weights, gather_tokens(values, index).flatten(1, 2))
        logits = logits.transpose(1, 2).unflatten(2, target["half"].shape[-2:])  # (B, K, h8, w8)
        return upsample_logits(logits, target["fused"].shape[-2:])

    def decode_single(self, target: dict[str, Tensor], folded: FoldedMRCFA) -> Tensor:
        """The per-frame prediction A (B, K, h, w)."""
        return self.frame_logits(target["fused"])


def _reference_grid(c3: Tensor) -> tuple[int, int]:
    """(gh, gw) of the reference tokens: half the map of stride 16, rounded down."""
    return c3.shape[-2] // 2, c3.shape[-1] // 2


def _size_fits(feats: Sequence[Tensor]) -> bool:
    (h4, w4), (h8, w8), _, (h32, w32) = (feat.shape[-2:] for feat in feats)
    sides = h4 % 2 == 0 and w4 % 2 == 0 and h8 % 4 != 3 and w8 % 4 != 3 and min(h8, w8) >= 4
    return sides and h32 * w32 >= SCORED_POSITIONS


def _require_size(feats: Sequence[Tensor]) -> None:
    """Raise DataError unless the maps of the target and the grid of the references fit each other."""
    if _size_fits(feats):
        return
    (h4, w4), (h8, w8), _, (h32, w32) = (tuple(feat.shape[-2:]) for feat in feats)
    raise DataError(
        f"MRCFA cannot use images of about {4 * h4} x {4 * w4}, whose maps have {h4} x {w4} positions at stride 4, "
        f"{h8} x {w8} at stride 8 and {h32} x {w32} at stride 32",
        "even sides at stride 4, sides of at least 4 that are not 3 modulo 4 at stride 8, and at least "
        f"{SCORED_POSITIONS} positions at stride 32; sides that are multiples of 32 qualify from 64 x 96 on",
        "resize, crop or pad to multiples of 32 (size_divisor=32)",
    )


def _check_settings(num_clips: int, hypercorre: bool, cityscape: bool, embed_dim: int) -> None:
    place = "model.decode_head (MRCFA)"
    if not hypercorre:
        raise ConfigError(
            f"{place}: hypercorre=False leaves no predictions for the loss",
            "hypercorre=True",
            "for a baseline without references use the SegFormerHead configs beside MRCFA's",
        )
    if cityscape:
        raise ConfigError(
            f"{place}: cityscape=True asks for a loss on another layout of labels, which was never part of a config",
            "cityscape=False",
            "remove the key",
        )
    if num_clips != NUM_REFERENCES + 1:
        raise ConfigError(
            f"{place}: num_clips={num_clips}, but the three references are wired into the head",
            "num_clips=4",
            "set num_clips=4 and three offsets in dilation",
        )
    if embed_dim != EMBED_DIM:
        raise ConfigError(
            f"{place}: decoder_params.embed_dim={embed_dim}, but the values have 256 channels",
            "embed_dim=256",
            "set decoder_params=dict(embed_dim=256)",
        )
