"""Models that look at a clip to predict its last frame: CFFM, CFFM++, MRCFA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.clips import inference_clip
from mmseg.errors import ConfigError
from mmseg.models.base import BaseSegmentor, Stream
from mmseg.models.layers.formulation import is_plain
from mmseg.models.layers.resize import resize
from mmseg.registry import MODELS


@MODELS.register_module()
class ClipSegmentor(BaseSegmentor):
    """Backbone on every frame, then a :class:`~mmseg.models.decode_heads.clip_head.ClipHead` on the clip."""

    @torch.no_grad()
    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W), at input size.

        A clip whose length is not the head's `num_clips` gets the per-frame prediction of its last frame.

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        if imgs.shape[1] != self.decode_head.num_clips and not is_plain():
            imgs = imgs[:, -1:]  # the other frames have no influence
        batch_size, num_clips = imgs.shape[:2]
        feats = self.backbone(imgs.flatten(0, 1))
        logits = self.decode_head(feats, batch_size, num_clips, img_metas=img_metas, **context)
        return resize(logits, imgs.shape[-2:])

    def stream(self, video: Any = None, **context: Any) -> ClipStream:
        """See :meth:`BaseSegmentor.stream`."""
        return ClipStream(self, video, context)


class ClipStream(Stream):
    """Every frame passes the backbone once; what later targets need of it is kept until they have passed."""

    def __init__(self, model: ClipSegmentor, video: Any, context: dict[str, Any]) -> None:
        if any(offset > 0 for offset in model.dilation):
            raise ConfigError(
                f"dilation {list(model.dilation)} looks at frames after the target",
                "offsets below 0 for streaming",
                "set data.test.dilation to past frames, or use encode_decode on whole clips",
            )
        self.head, self._video, self._given = model.decode_head, video, context
        self._references: dict[int, Any] = {}  # frame number -> reference state, at most `-min(dilation)` of them
        super().__init__(model)
        with torch.no_grad():
            self._folded = self.head.fold()

    @torch.no_grad()
    def reset(self) -> None:
        super().reset()
        self._references.clear()
        self._context = self._given or self.head.stream_context(self._video, self.model.backbone)

    def _decode(self, img: Tensor) -> Tensor:
        clip = inference_clip(self.frame, self.model.dilation)
        target, reference = self.head.embed(self.model.backbone(img), self._folded)
        self.head.observe(target, self._context)
        if len(clip) == self.head.num_clips:
            references = [self._references[number] for number in clip[:-1]]
            logits = self.head.decode(target, references, self._folded, **self._context)
        else:
            logits = self.head.decode_single(target, self._folded)
        self._references[self.frame] = reference
        self._references.pop(self.frame + min(self.model.dilation, default=0), None)
        return logits
