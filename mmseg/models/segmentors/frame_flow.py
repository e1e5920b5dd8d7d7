"""Models that look at a frame and the picture of its optical flow: HFAN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmseg.errors import CheckpointError, ConfigError
from mmseg.models.backbones.pretrained import load_pretrained
from mmseg.models.backbones.two_stream import TwoStream
from mmseg.models.base import Purpose
from mmseg.models.decode_heads.hfan.head import BLOCKS, HFANHead
from mmseg.models.segmentors.frame import FrameSegmentor
from mmseg.registry import MODELS

_EMBED_DIM = "decode_head.linear_fuse.bn.weight"  # as long as decoder_params.embed_dim


@MODELS.register_module()
class TwoStreamSegmentor(FrameSegmentor):
    """A :class:`~mmseg.models.backbones.two_stream.TwoStream` backbone and a head that fuses its streams.

    Frames, images and clips have six channels: frame and flow picture, both normalised RGB.
    """

    takes_flow = True

    def _check_parts(self) -> None:
        for part, kind in ((self.backbone, TwoStream), (self.decode_head, HFANHead)):
            if not isinstance(part, kind):
                raise ConfigError(
                    f"model.type = 'TwoStreamSegmentor' with a {type(part).__name__}",
                    f"a {kind.__name__}",
                    "use a backbone and a head of HFAN's configs together",
                )
        super()._check_parts()

    @property
    def synchronised_norms(self) -> tuple[str, ...]:
        """The norm of the decoder, and those of a backbone that asks for it; those of the fusion blocks never are."""
        own = ("backbone",) if getattr(self.backbone.backbone, "synchronised", False) else ()
        return ("decode_head.linear_fuse", *own)

    def features(self, frames: Tensor) -> list[Tensor]:
        """Maps of both streams, [(2B, C_s, h_s, w_s)], or of the one that the head looks at, [(B, C_s, h_s, w_s)].

        Batch norms of the backbone take the statistics of both streams in training, whatever the head looks at.
        """
        both = self.training and self.backbone.mixes_samples
        return self.backbone(frames, None if both else self.decode_head.stream)

    def _coarse_logits(self, frames: Tensor, folded: Any) -> Tensor:
        head = self.decode_head
        return head.frame_logits(head.fuse(self.features(frames), folded, len(frames)))

    @torch.no_grad()
    def feature_maps(self, img: Tensor) -> list[dict[str, Tensor]]:
        """Features (C, h, w) of a frame (6, H, W), stage by stage and by name, before and after the fusion."""
        self.require_eval()
        stages = self.decode_head.stages(self.backbone(img[None]))
        return [{name: maps[0] for name, maps in stage.items()} for stage in stages]

    def load_pretrained(self, path: str) -> None:
        """Load weights of the backbone that looks at both streams."""
        load_pretrained(self.backbone.backbone, path)

    def adapt_weights(self, state: dict[str, Tensor], purpose: Purpose) -> dict[str, Tensor]:
        """Entries of a checkpoint, those of the backbone under our names.

        Raises:
            CheckpointError: to be tested with, and of another `select_method` or `embed_dim`.
        """
        if purpose in ("test", "resume"):
            self._require_same_head(state)
        adapt = getattr(self.backbone.backbone, "adapt_names", None)
        inner = {name: value for name, value in state.items() if name.startswith("backbone.backbone.")}
        if adapt is None or not inner:
            return state
        rest = {name: value for name, value in state.items() if name not in inner}
        own = adapt({name.removeprefix("backbone.backbone."): value for name, value in inner.items()})
        return {**{f"backbone.backbone.{name}": value for name, value in own.items()}, **rest}

    def _require_same_head(self, state: Mapping[str, Tensor]) -> None:
        method = self.decode_head.select_method
        found = {match[1] for name in state if (match := re.match(r"decode_head\.([a-z]+)1\.", name))} & {*BLOCKS}
        expected = {method} & {*BLOCKS}
        if found != expected:
            there = found.pop() if found else "im, fw or base, which a checkpoint does not tell apart"
            raise CheckpointError(
                f"a checkpoint of select_method {there}, for a model of select_method {method!r}",
                "the select_method that it was trained with",
                "give --options model.decode_head.select_method=..., or another checkpoint",
            )
        dim = self.decode_head.embed_dim
        if _EMBED_DIM in state and len(state[_EMBED_DIM]) != dim:
            raise CheckpointError(
                f"a checkpoint of embed_dim {len(state[_EMBED_DIM])}, for a model of embed_dim {dim}",
                "the embed_dim that it was trained with",
                f"set model.decode_head.decoder_params.embed_dim={len(state[_EMBED_DIM])}",
            )
