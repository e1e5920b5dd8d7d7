"""The contract of every model: a loss, whole-clip inference, and a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmseg.clips import CFFM_DILATION
from mmseg.errors import ConfigError, DataError
from mmseg.models.backbones.mit_weights import load_pretrained
from mmseg.models.builder import build_backbone, build_head
from mmseg.models.layers.formulation import is_plain
from mmseg.models.layers.resize import resize


class BaseSegmentor(nn.Module):
    """A backbone, a head, and what the loops of the engine need.

    Args:
        backbone, decode_head: config dicts.
        pretrained: file with weights of the backbone; a missing one gives a warning, None random weights.
        train_cfg: accepted for the sake of published configs, without effect.
        test_cfg: ``dict(mode='whole')``.
        activation_checkpointing: recompute the backbone's activations in backward instead of keeping them.

    Attributes:
        num_classes: K.
        CLASSES, PALETTE: names and colours of the classes, or None.
        dilation: offsets of the references relative to the target, for :meth:`stream`.

    Raises:
        ConfigError: a value that cannot work.
        CheckpointError: `pretrained` exists and does not fit.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        pretrained: str | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        mode = (test_cfg or {}).get("mode", "whole")
        if mode != "whole":
            raise ConfigError(f"model.test_cfg.mode={mode!r}", "'whole'", "use test_cfg=dict(mode='whole')")
        self.backbone = build_backbone(backbone)
        self.decode_head = build_head(decode_head)
        if activation_checkpointing:
            self.backbone.with_cp = True
        self.num_classes: int = self.decode_head.num_classes
        self.CLASSES: Sequence[str] | None = None
        self.PALETTE: Sequence[Sequence[int]] | None = None
        self.dilation: tuple[int, ...] = CFFM_DILATION
        self.init_weights(pretrained)

    def init_weights(self, pretrained: str | None = None) -> None:
        """Load `pretrained` into the backbone, whose random initialisation its constructor has done."""
        if pretrained:
            load_pretrained(self.backbone, pretrained)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """:meth:`loss`; what a wrapper for distributed training calls."""
        return self.loss(batch)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: ``img`` (B, T, 3, H, W) float32, ``gt_semantic_seg`` (B, T, 1, H, W) int64 and optionally
                ``img_metas``, a list of B dicts.

        Returns:
            ``decode.loss_seg`` and ``decode.acc_seg`` (percent), scalars; the total loss is the sum of the entries with
            "loss" in their name.
        """
        imgs, labels, head = batch["img"], batch["gt_semantic_seg"], self.decode_head
        with torch.set_grad_enabled(torch.is_grad_enabled() and (is_plain() or not head.frozen_backbone)):
            feats = self.backbone(imgs[:, head.train_frames].flatten(0, 1))
        context = {key: batch[key] for key in head.context_keys if key in batch}
        losses = head.loss(feats, *imgs.shape[:2], labels, img_metas=batch.get("img_metas"), **context)
        return {f"decode.{name}": value for name, value in losses.items()}

    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W), at input size, in eval mode."""
        raise NotImplementedError

    def stream(self, video: Any = None, **context: Any) -> Stream:
        """A new stream for the frames of one video, in order.

        Args:
            video: name of the video, for heads that keep something per video; or the whole video, as an object with
                `name`, `num_frames` and ``network_input(t)`` (frame t, normalised, (3, h, w)).
            context: what the head takes besides frames.

        Raises:
            ConfigError: the model is in training mode, or its `dilation` cannot be streamed.
        """
        raise NotImplementedError

    def require_eval(self) -> None:
        """Raise ConfigError in training mode, in which dropout and batch statistics would spoil predictions."""
        if self.training:
            raise ConfigError("the model is in training mode", "eval mode for inference", "call model.eval() first")


class Stream:
    """State of a model between the frames of one video. Weights are folded once, when it is made."""

    def __init__(self, model: BaseSegmentor) -> None:
        model.require_eval()
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self.frame = 0  # number of the next frame
        self._size: tuple[int, int] | None = None

    @torch.no_grad()
    def step(self, img: Tensor) -> Tensor:
        """Logits (K, H, W) of the next frame `img` (3, H, W), normalised, on the model's device.

        Raises:
            DataError: a frame of another size than those before it.
            ConfigError: the model has been set to training mode.
        """
        return resize(self.coarse_step(img)[None], tuple(img.shape[-2:]))[0]

    @torch.no_grad()
    def coarse_step(self, img: Tensor) -> Tensor:
        """:meth:`step` without its last part, the resize to input size: logits (K, h, w) as the head gives them."""
        self.model.require_eval()
        size = tuple(img.shape[-2:])
        if img.ndim != 3 or self._size not in (None, size):
            raise DataError(
                f"frame {self.frame} has shape {tuple(img.shape)}",
                f"(3, {', '.join(map(str, self._size or 'HW'))}), the size of the frames before it",
                "use one stream per video, or resize the frames to one size",
            )
        logits = self._decode(img[None])[0]
        self._size = size
        self.frame += 1
        return logits

    def _decode(self, img: Tensor) -> Tensor:
        """Logits (1, K, h, w) of the frame `img` (1, 3, H, W), whose number is `self.frame`."""
        raise NotImplementedError
