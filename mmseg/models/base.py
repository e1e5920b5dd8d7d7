"""The contract of every model: a loss for training, and a stream for the frames of a video in order.

A video model is a per-frame encoder (`embed`, each frame once), a bounded memory (`remember`) and a decoder
(`decode`); a stream (:mod:`mmseg.models.stream`) is the policy around the three.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError, nearest
from mmseg.models.backbones.pretrained import load_pretrained
from mmseg.models.builder import build_backbone, build_head
from mmseg.models.checks import checked_labels, require_keys
from mmseg.models.exportable import ExportParts
from mmseg.models.sharing import Shared
from mmseg.models.stream import Stream
from mmseg.structures import ScoreKind, Size, View

Purpose = Literal["train", "finetune", "test", "resume"]


class VideoModel(Shared, nn.Module):
    """What the loops of the engine ask of a model, whatever its parts are.

    Attributes:
        num_classes: K; None for models of objects.
        test_cfg: that of the config.
        CLASSES, PALETTE: names and colours of the classes, or None.
        facts: what else the checkpoint said that it was loaded from.
        stream_settings: names of the settings that :meth:`stream` takes.
        synchronised_norms: prefixes of the norms that take the statistics of all processes; "" is all, () none.
        batch_keys: entries of a batch that :meth:`loss` cannot do without.
        bfloat16_weights: it keeps its precision if all weights and activations are bfloat16, as it does under autocast.
        in_parts: its streams let threads share a frame's work: :meth:`prepare` and :meth:`Stream.admit`.
        takes_flow: frames come with a picture of their optical flow, and network inputs have 6 channels.
        view_inputs: names of the inputs of a view that its streams look at; None: whatever there is.
        score_kind: what its streams give, see :class:`mmseg.structures.Scores`.
        finetune_trains: part of the names of the parameters that fine-tuning trains; None trains all.
    """

    num_classes: int | None = None
    test_cfg: Mapping[str, Any] = {}
    CLASSES: Sequence[str] | None = None
    PALETTE: Sequence[Sequence[int]] | None = None
    facts: Mapping[str, Any] = {}
    stream_settings: tuple[str, ...] = ()
    synchronised_norms: tuple[str, ...] = ("",)
    takes_flow = False
    view_inputs: tuple[str, ...] | None = None
    score_kind: ScoreKind = "logits"
    finetune_trains: str | None = None
    bfloat16_weights = False
    in_parts = False
    batch_keys: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0  # raised by whatever may change weights under a stream
        self._folded: tuple[Any, Any] | None = None  # (fingerprint, what fold() gave)
        self._rounded: tuple[Any, list[VideoModel]] | None = None  # (fingerprint, the model in bfloat16)

    # ------------------------------------------------------------------ training

    def forward(self, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
        """:meth:`loss`; what a wrapper for distributed training calls.

        Raises:
            ConfigError: the batch lacks one of `batch_keys`.
        """
        require_keys(batch, self.batch_keys)
        return self.loss(batch, iteration)

    def loss(self, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
        """Scalars of a batch, the same keys in all processes; those with "loss" in their name are summed."""
        raise NotImplementedError

    def load_pretrained(self, path: str) -> None:
        """Load ImageNet weights. Raises CheckpointError for a file that does not fit."""
        raise NotImplementedError

    def compile_parts(self, **options: Any) -> None:
        """Compile, in place, what takes and gives tensors only: no names of videos and no iteration enter it.

        Args:
            options: of ``torch.compile``.
        """
        raise NotImplementedError

    def adapt_weights(self, state: dict[str, Tensor], purpose: Purpose) -> dict[str, Tensor]:
        """The entries of a checkpoint as this model wants them, before they are matched by name and shape."""
        return state

    def check_training_clips(self, num_frames: int, place: str) -> None:
        """Raise ConfigError unless the model can be trained on clips of `num_frames`, as `place` has them."""

    # ------------------------------------------------------------------ inference

    def stream(self, video: Any = None, **settings: Any) -> Stream:
        """A new stream for the frames of one video, in order.

        Args:
            video: its name, for models that keep something per video; or the whole video, as an object with `name`,
                `num_frames` and ``network_input(t)`` (frame t as the network sees it, (C, h, w)).
            settings: those of `stream_settings`.

        Raises:
            ConfigError: the model is in training mode, or a setting that it does not have or that does not fit it.
        """
        raise NotImplementedError

    def prepare(self, view: View) -> Any:
        """What can be computed of a frame without those before it; in any thread, for several frames at once.

        Raises:
            ConfigError, DataError: see :meth:`Stream.push`.
        """
        return None

    def prepare_together(self, views: Sequence[View]) -> list[Any]:
        """:meth:`prepare` of several frames of one size."""
        return [self.prepare(view) for view in views]

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for settings that :meth:`stream` would refuse."""
        for name in settings:
            if name not in self.stream_settings:
                raise ConfigError(
                    f"{type(self).__name__}: a stream with {name}={settings[name]!r}",
                    f"settings from {', '.join(self.stream_settings) or 'none at all'}",
                    nearest(name, self.stream_settings),
                )

    def export_parts(self, size: Size, **settings: Any) -> ExportParts:
        """What the model is cut into for :mod:`mmseg.exporting`: streams of frames of one size, without PyTorch.

        Args:
            size: (h, w) of the network's input.
            settings: as for :meth:`stream`.

        Raises:
            ConfigError: this kind of model cannot be cut, it is in training mode, or a setting does not fit.
            DataError: a size that the model cannot take.
        """
        raise ConfigError(
            f"an export of {type(self).__name__}, which cannot be cut into parts",
            "a model that says what its parts are (export_parts)",
            "use PyTorch",
        )

    def require_eval(self) -> None:
        """Raise ConfigError in training mode, in which dropout and batch statistics would spoil predictions."""
        if self.training:
            raise ConfigError("the model is in training mode", "eval mode for inference", "call model.eval() first")

    def fold(self) -> Any:
        """What can be computed from the weights alone, in eval mode."""
        return None

    @torch.no_grad()
    def folded(self) -> Any:
        """The result of :meth:`fold` for the present weights, computed once and shared by all streams."""
        fingerprint = self._fingerprint()
        folded = self._folded  # looked at once: streams in other threads may put another one there
        if folded is None or folded[0] != fingerprint:
            # in the precision of the weights, whatever autocast a stream runs under
            with torch.autocast(next(self.parameters()).device.type, enabled=False):
                self._folded = folded = (fingerprint, self.fold())
        return folded[1]

    def in_bfloat16(self) -> VideoModel:
        """This model with weights in bfloat16, made once for the present weights and shared by all streams.

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        fingerprint, rounded = self._fingerprint(), self._rounded
        if rounded is None or rounded[0] != fingerprint:
            rest = {id(kept): None for kept in (self._folded, rounded) if kept is not None}  # is not copied
            self._rounded = rounded = (fingerprint, [copy.deepcopy(self, rest).bfloat16()])
        return rounded[1][0]

    def _fingerprint(self) -> tuple:
        """Tells whether any weight or buffer has been replaced, moved, converted or written to."""
        tensors = [*self.parameters(), *self.buffers()]
        versions = ((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in tensors)
        return (self.changes, self.training, *versions)

    # ------------------------------------------------------------------ what counts as a change

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # to(), cuda(), half(), double() ...
        self.changes += 1
        return super()._apply(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.changes += 1
        return super().load_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> VideoModel:
        self.changes += mode != self.training
        return super().train(mode)


class Segmentor(VideoModel):
    """A backbone and a decode head.

    Args:
        backbone, decode_head: config dicts.
        pretrained: file with weights of the backbone; a missing one gives a warning, None random weights.
        test_cfg: ``dict(mode='whole')``; frame models also take 'slide'.
        activation_checkpointing: recompute the backbone's activations in backward instead of keeping them.

    Raises:
        ConfigError: a value that cannot work.
        CheckpointError: `pretrained` exists and does not fit.
    """

    batch_keys = ("img", "gt_semantic_seg")
    view_inputs = ("img",)

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        pretrained: str | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.test_cfg = dict(test_cfg or {})
        self._check_mode(self.test_cfg.get("mode", "whole"))
        self.backbone = build_backbone(backbone)
        self.decode_head = build_head(decode_head)
        if activation_checkpointing:
            self.backbone.with_cp = True
        self.num_classes: int = self.decode_head.num_classes
        self._check_parts()
        if pretrained and backbone.get("init_cfg"):
            raise ConfigError(
                f"model.pretrained = {pretrained!r} beside model.backbone.init_cfg",
                "one file to start from",
                "remove one of them",
            )
        if pretrained:
            self.load_pretrained(pretrained)

    def _check_mode(self, mode: Any) -> None:
        if mode != "whole":
            raise ConfigError(
                f"model.test_cfg.mode={mode!r} for a {type(self).__name__}",
                "'whole'; only models of single frames take 'slide'",
                "use test_cfg=dict(mode='whole')",
            )

    def _require_head(self, fits: bool, expected: str) -> None:
        """Raise ConfigError for a head of another kind of segmentor."""
        if not fits:
            raise ConfigError(
                f"model.type = {type(self).__name__!r} with a {type(self.decode_head).__name__}",
                expected,
                f"set model.type={getattr(self.decode_head, 'segmentor', 'ClipSegmentor')!r}",
            )

    def _check_parts(self) -> None:
        """Raise ConfigError unless the head takes the backbone's maps, and ``test_cfg`` has keys that are read."""
        made, taken = getattr(self.backbone, "out_channels", None), getattr(self.decode_head, "in_channels", None)
        if made is not None and taken is not None and tuple(made) != tuple(taken):
            raise ConfigError(
                f"model.decode_head.in_channels = {list(taken)} after a {type(self.backbone).__name__}",
                f"{list(made)}, the channels of its maps",
                "set model.decode_head.in_channels, or model.backbone.type",
            )
        windows = ("crop_size", "stride") if self.test_cfg.get("mode") == "slide" else ()
        for key in self.test_cfg:
            if key not in (known := ("mode", *windows, *self.stream_settings)):
                raise ConfigError(
                    f"model.test_cfg.{key}: unknown key {key!r}", f"one of {', '.join(known)}", nearest(key, known)
                )

    def load_pretrained(self, path: str) -> None:
        """Load weights of the backbone."""
        load_pretrained(self.backbone, path)

    def compile_parts(self, **options: Any) -> None:
        """The backbone, and what the head names in `compiled_methods`."""
        self.backbone.compile(**options)
        for function in self.decode_head.compiled_constants:
            torch.compiler.assume_constant_result(function)
        for name in self.decode_head.compiled_methods:
            setattr(self.decode_head, name, torch.compile(getattr(self.decode_head, name), **options))

    def loss(self, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: ``img`` (B, T, 3, H, W) float32, ``gt_semantic_seg`` (B, T, 1, H, W) int64 and optionally
                ``img_metas``, a list of B dicts.
            iteration: number of the update, counted from 0.

        Returns:
            ``decode.loss_seg`` and ``decode.acc_seg`` (percent), scalars; the total loss is the sum of the entries with
            "loss" in their name.

        Raises:
            ConfigError: the batch lacks one of `batch_keys`.
            DataError: a tensor of another shape or type.
        """
        require_keys(batch, self.batch_keys)
        imgs, head = batch["img"], self.decode_head
        labels = checked_labels(imgs, batch["gt_semantic_seg"], 6 if self.takes_flow else 3)
        trained = not head.frozen_backbone and any(p.requires_grad for p in self.backbone.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            feats = self.features(imgs[:, head.train_frames].flatten(0, 1))
        context = {key: value for key, value in {**batch, "iteration": iteration}.items() if key in head.context_keys}
        losses = head.loss(feats, *imgs.shape[:2], labels, img_metas=batch.get("img_metas"), **context)
        return {f"decode.{name}": value for name, value in losses.items()}

    def features(self, frames: Tensor) -> list[Tensor]:
        """The maps of frames (n, C, H, W) that the head is given."""
        return self.backbone(frames)

    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W), at input size, in eval mode."""
        raise NotImplementedError

    def fold(self) -> Any:
        """Those of the head."""
        return self.decode_head.fold()
