"""What the heads for clips share: losses, return values, and the contract with the streaming segmentor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.decode_heads.base import FusionHead
from mmseg.models.states import select_frames
from mmseg.values import Channels, NumClasses, PositiveInt


class ClipHead(FusionHead):
    """Head that predicts the last frame of a clip with the help of the frames before it.

    In training the result is the per-frame prediction of every frame followed by P predictions of the target. In
    eval mode the work is divided so that a frame is embedded once, however many clips it takes part in: :meth:`embed`
    and :meth:`remember` once per frame, :meth:`decode` once per target. A clip of another length than `num_clips` (the
    first frames of a video) gets the per-frame prediction of its last frame.

    Subclasses implement :meth:`predictions`, :meth:`embed`, :meth:`remember`, :meth:`decode`, :meth:`decode_single`,
    and extend :meth:`fold` and :meth:`stream_context` where they need to.

    Args:
        num_clips: frames per clip, the target included.
        kwargs: see :class:`FusionHead`.

    Attributes:
        default_dilation: offsets of the references relative to the target that the method was published with.
        decode_reads: names of the tensors of a target state whose values :meth:`decode` looks at, of others it
            takes the shape alone; None: all. Exports leave the others out.
        single_reads: the same for :meth:`decode_single`.
    """

    default_dilation: tuple[int, ...] = ()
    decode_reads: tuple[str, ...] | None = None
    single_reads: tuple[str, ...] | None = None

    segmentor = "ClipSegmentor"
    compiled_methods = ("train_logits",)

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        num_clips: PositiveInt = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, **kwargs)
        self.num_clips = num_clips

    # ------------------------------------------------------------------ what subclasses write

    def predictions(
        self, feats: Sequence[Tensor], fused: Tensor, batch_size: int, num_clips: int, **context: Any
    ) -> Tensor:
        """Predictions of the target in training.

        Args:
            feats: maps of all frames, [(B * T, C_s, h_s, w_s)], sample-major, oldest frame first.
            fused: F (B * T, dim, h, w).

        Returns:
            (B, P, K, h, w).
        """
        raise NotImplementedError

    def embed(self, feats: Sequence[Tensor], folded: Any) -> Any:
        """What the predictions of n frames need of the frames themselves.

        A state is a tensor with the frames on axis 0, or a tuple, list, dict or dataclass of such.
        """
        raise NotImplementedError

    def remember(self, target: Any, folded: Any) -> Any:
        """What later targets need of n frames, a state made from what :meth:`embed` gave."""
        raise NotImplementedError

    def decode(self, target: Any, references: list[Any], folded: Any, **context: Any) -> Tensor:
        """Logits (B, K, h, w) of targets with their references, oldest first."""
        raise NotImplementedError

    def decode_single(self, target: Any, folded: Any) -> Tensor:
        """Logits (B, K, h, w) of targets without references: their per-frame prediction A."""
        raise NotImplementedError

    def stream_context(self, video: Any, backbone: nn.Module | None = None) -> dict[str, Any]:
        """What belongs to a whole video (as keyword arguments of :meth:`decode`, axis 0 of length 1).

        Args:
            video: its name; or, if the whole video is at hand, an object with its `name`, `num_frames` and
                ``network_input(t)``, which gives frame t as the network sees it, (3, h, w); or None.
            backbone: what turns such frames (n, 3, h, w) into maps.
        """
        return {}

    @property
    def export_policy(self) -> dict[str, Any]:
        """Plain data about them."""
        return {}

    def export_context(self) -> dict[str, Tensor]:
        """Examples of the keyword arguments of :meth:`decode`, for an export."""
        return {}

    def observe(self, target: Any, context: dict[str, Any]) -> None:
        """Take notice of the target state of the next frame of a stream, whose context is `context`."""

    def present(self, context: dict[str, Any]) -> dict[str, Any]:
        """`context` as it is now: later frames do not change what :meth:`decode` is given for this one."""
        return context

    # ------------------------------------------------------------------ what they share

    def clip_context(self, img_metas: Sequence[dict] | None, context: dict[str, Any]) -> dict[str, Any]:
        """`context` if it holds anything, else that of the samples' videos, joined along axis 0."""
        if context or not img_metas:
            return context
        per_sample = [self.stream_context(meta.get("video")) for meta in img_metas]
        return {key: torch.cat([sample[key] for sample in per_sample]) for key in per_sample[0]}

    def train_logits(
        self, feats: Sequence[Tensor], batch_size: int, num_clips: int, **context: Any
    ) -> tuple[Tensor, Tensor]:
        """A (B, T, K, h, w) of all frames and the P predictions (B, P, K, h, w) of the target."""
        fused = self.fuse(feats)
        frame_logits = self.frame_logits(fused).unflatten(0, (batch_size, num_clips))
        return frame_logits, self.predictions(feats, fused, batch_size, num_clips, **context)

    def forward(
        self,
        feats: Sequence[Tensor],
        batch_size: int | None = None,
        num_clips: int | None = None,
        img_metas: Sequence[dict] | None = None,
        **context: Any,
    ) -> Tensor:
        """Logits: (B, T + P, K, h, w) in training; (B, K, h, w) of the last frame in eval mode.

        Raises:
            ConfigError: in training, clips of another length than `num_clips`.
        """
        num_clips = num_clips or self.num_clips
        batch_size = batch_size or feats[0].shape[0] // num_clips
        if self.training:
            self._check_length(num_clips)
        if num_clips == self.num_clips:
            context = self.clip_context(img_metas, context)
        if self.training:
            return torch.cat(self.train_logits(feats, batch_size, num_clips, **context), dim=1)
        folded = self.fold()
        return self.decode_clip(self.embed(feats, folded), num_clips, folded, **context)

    def decode_clip(self, frames: Any, num_clips: int, folded: Any, **context: Any) -> Tensor:
        """Logits (B, K, h, w) of the last frames of whole clips, from what was embedded of all their frames (B * T)."""
        target = select_frames(frames, slice(num_clips - 1, None, num_clips))
        if num_clips != self.num_clips:
            return self.decode_single(target, folded)
        entries = self.remember(frames, folded)
        references = [select_frames(entries, slice(k, None, num_clips)) for k in range(num_clips - 1)]
        return self.decode(target, references, folded, **context)

    def loss(
        self,
        feats: Sequence[Tensor],
        batch_size: int,
        num_clips: int,
        labels: Tensor,
        img_metas: Sequence[dict] | None = None,
        **context: Any,
    ) -> dict[str, Tensor]:
        """Half the loss of A of all frames plus that of the target's predictions.

        Args:
            labels: (B, T, 1, H, W) int64.

        Returns:
            ``loss_seg`` (scalar), or several losses by their names; and ``acc_seg``, the accuracy of A in percent of
            all pixels, ignored ones included.

        Raises:
            ConfigError: clips of another length than `num_clips`.
        """
        self._check_length(num_clips)
        context = self.clip_context(img_metas, context)
        frame_logits, target_logits = self.train_logits(feats, batch_size, num_clips, **context)
        target_labels = labels[:, -1:, 0].expand(-1, target_logits.shape[1], -1, -1)  # (B, P, H, W)
        of_frames, correct = self.loss_decode(frame_logits.flatten(0, 1), labels.flatten(0, 2))
        of_target, _ = self.loss_decode(target_logits.flatten(0, 1), target_labels.flatten(0, 1))
        losses = {name: 0.5 * of_frames[name] + of_target[name] for name in of_target}
        return {**losses, "acc_seg": 100 * correct / labels.numel()}

    def _check_length(self, num_clips: int) -> None:
        if num_clips != self.num_clips:
            raise ConfigError(
                f"training clips of {num_clips} frames for a head with num_clips={self.num_clips}",
                f"{self.num_clips - 1} references and the target",
                "make data.train.dataset.dilation and decode_head.num_clips agree",
            )
