"""Models that look at one frame at a time: the SegFormer baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.models.base import BaseSegmentor, Stream
from mmseg.models.layers.resize import resize
from mmseg.registry import MODELS


@MODELS.register_module()
class FrameSegmentor(BaseSegmentor):
    """Backbone and head on every frame by itself.

    In training the T frames of a clip are T independent images; in inference only the last one counts. A batch of
    images (B, 3, H, W) with labels (B, 1, H, W) is taken as clips of one frame.
    """

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :meth:`BaseSegmentor.loss`."""
        if batch["img"].ndim == 4:
            batch = {**batch, **{key: batch[key][:, None] for key in ("img", "gt_semantic_seg")}}
        return super().loss(batch)

    @torch.no_grad()
    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) at input size of the last frames of `imgs` (B, T, 3, H, W) or of images (B, 3, H, W).

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        frames = imgs[:, -1] if imgs.ndim == 5 else imgs
        return resize(self.decode_head(self.backbone(frames)), frames.shape[-2:])

    def stream(self, video: Any = None, **context: Any) -> FrameStream:
        """See :meth:`BaseSegmentor.stream`."""
        return FrameStream(self)


class FrameStream(Stream):
    """A stream without memory."""

    def __init__(self, model: FrameSegmentor) -> None:
        super().__init__(model)
        with torch.no_grad():
            self._folded = model.decode_head.fold_fuse()

    def _decode(self, img: Tensor) -> Tensor:
        head = self.model.decode_head
        return head.frame_logits(head.fuse(self.model.backbone(img), self._folded))
