"""Models that look at one frame at a time: the SegFormer baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.models.base import Segmentor
from mmseg.models.checks import require_keys
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.exportable import ExportParts, Formula, Part
from mmseg.models.layers.resize import resize
from mmseg.models.segmentors.slide import slide, slide_sizes
from mmseg.models.stream import Pending, Stream
from mmseg.registry import MODELS
from mmseg.structures import Size, View


@MODELS.register_module()
class FrameSegmentor(Segmentor):
    """Backbone and head on every frame by itself.

    In training the T frames of a clip are T independent images; in inference only the last one counts. A batch of
    images (B, 3, H, W) with labels (B, 1, H, W) is taken as clips of one frame. With ``test_cfg.mode='slide'`` frames
    are seen in overlapping windows.
    """

    in_parts = bfloat16_weights = True
    windows: tuple | None = None  # crop size and stride of mode='slide'

    def _check_mode(self, mode: Any) -> None:
        if mode == "slide":
            self.windows = slide_sizes(self.test_cfg)
        else:
            super()._check_mode(mode)

    def _check_parts(self) -> None:
        head = self.decode_head
        self._require_head(hasattr(head, "frame_logits") and not isinstance(head, ClipHead), "a head of single frames")
        super()._check_parts()

    def loss(self, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
        """See :meth:`Segmentor.loss`."""
        require_keys(batch, self.batch_keys)
        if getattr(batch["img"], "ndim", 0) == 4:
            batch = {**batch, **{key: batch[key][:, None] for key in ("img", "gt_semantic_seg")}}
        return super().loss(batch, iteration)

    @torch.no_grad()
    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) at input size of the last frames of `imgs` (B, T, 3, H, W) or of images (B, 3, H, W).

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        frames = imgs[:, -1] if imgs.ndim == 5 else imgs
        if self.windows is not None:
            return self.frame_scores(frames)
        return self._window_logits(frames)

    def frame_scores(self, frames: Tensor, folded: Any = None) -> Tensor:
        """Logits (n, K, h, w) of frames (n, C, H, W): as coarse as the head gives them; with windows of their size."""
        if self.windows is None:
            return self._coarse_logits(frames, folded)
        logits = partial(self._window_logits, folded=folded)
        return torch.stack([slide(logits, frame, *self.windows) for frame in frames])

    def _window_logits(self, windows: Tensor, folded: Any = None) -> Tensor:
        return resize(self._coarse_logits(windows, folded), windows.shape[-2:])

    def _coarse_logits(self, frames: Tensor, folded: Any) -> Tensor:
        return self.decode_head.frame_logits(self.decode_head.fuse(self.features(frames), folded))

    @torch.no_grad()
    def export_parts(self, size: Size, **settings: Any) -> ExportParts:
        """See :meth:`VideoModel.export_parts`: one part, ``decode``, from frames to coarse logits."""
        self.check_settings(settings)
        self.require_eval()
        if self.windows is not None:
            raise ConfigError(
                "an export of a model with test_cfg.mode='slide'",
                "'whole'; a graph sees the frame at once",
                "give --options model.test_cfg.mode=whole, which changes the numbers",
            )
        img, folded = torch.zeros(1, 6 if self.takes_flow else 3, *size), self.fold()
        return ExportParts(
            {
                "decode": Part(
                    Formula(self, lambda frames: self._coarse_logits(frames, folded)),
                    {"img": img},
                    ("logits",),
                    {"img": {0: "batch"}},
                )
            },
            {"kind": "frame"},
        )

    def stream(self, video: Any = None, **settings: Any) -> FrameStream:
        """See :meth:`VideoModel.stream`."""
        self.check_settings(settings)
        return FrameStream(self)


class FrameStream(Stream):
    """A stream without memory; unwanted frames are not looked at."""

    def _admit(self, view: View, prepared: None) -> list[Pending]:
        img = view.inputs["img"]
        return [Pending(view.number, self.model.frame_scores, img[None], shared=self._folded)] if view.wanted else []
