"""CFFM++: CFFM with a second branch that looks at prototypes of the whole video (TPAMI 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError, DataError
from mmseg.models.cpu.linear import linear
from mmseg.models.decode_heads.cffm.focal import to_tokens
from mmseg.models.decode_heads.cffm.head import CFFMHead, FoldedCFFM, TargetState
from mmseg.models.decode_heads.cffm.prototype_attention import PrototypeDecoder
from mmseg.models.decode_heads.cffm.prototype_files import PrototypeStore, video_seed
from mmseg.models.decode_heads.cffm.video_prototypes import LivePrototypes, WholeVideo, whole_video_prototypes
from mmseg.models.layers import full_precision
from mmseg.models.layers.resize import halve, resize
from mmseg.registry import MODELS
from mmseg.values import Channels, Fraction, NumClasses, PositiveInt

BRANCH_WEIGHT = 0.5  # of the prototype branch P3 in the final prediction P + 0.5 P3


@MODELS.register_module()
class CFFMPlusHead(CFFMHead):
    """A frozen CFFM and a branch in which the target's tokens attend to the video's prototypes (paper, section 3.3).

    Only the branch learns: everything before it runs without a graph and with the batch norm in eval mode, so the
    CFFM weights in a CFFM++ checkpoint stay those of the CFFM it was made from. The training loss is the cross entropy
    of the branch plus, as a constant, half that of the per-frame prediction.

    Prototypes reach the head as ``prototypes=`` (B, n, C), or one (n, C) per sample; as files, found by the name of the
    video; or, with ``prototypes='auto'``, from the video itself where it has no file
    (:mod:`mmseg.models.decode_heads.cffm.video_prototypes`).

    Args:
        in_channels, channels, num_classes, kwargs: see :class:`~mmseg.models.decode_heads.cffm.head.CFFMHead`.
        dropout_ratio: channel dropout before every classifier.
        save_path: folder of the files ``<video>/centers.pt``.
        prototypes: ``'files'``, or ``'auto'`` to compute in a stream what has no file.
        n_clusters: number of prototypes that are computed on the fly.
        log_constant_loss: False leaves the constant out of the loss, and the reference frames out of the training step;
            the accuracy is then that of the branch.

    Raises:
        ConfigError: a value that cannot work.
    """

    context_keys = ("prototypes",)
    frozen_backbone = True
    new_parts = ("linear_pred3", "decoder_swin")  # not in the checkpoint of CFFM that a training starts from

    compiled_methods = ("train_logits", "_branch_logits")

    def __init__(
        self,
        in_channels: Channels,
        channels: PositiveInt,
        num_classes: NumClasses,
        dropout_ratio: Fraction = 0.1,
        save_path: str = "./cluster_centers/",
        prototypes: Literal["files", "auto"] = "files",
        n_clusters: PositiveInt = 100,
        log_constant_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, channels, num_classes, dropout_ratio=dropout_ratio, **kwargs)
        self.save_path, self.prototypes, self.n_clusters = save_path, prototypes, n_clusters
        self.log_constant_loss = log_constant_loss
        focal = self.decoder_focal
        del self.decoder_focal  # entries of the published files have the classifiers first
        self.linear_pred3 = nn.Conv2d(self.embed_dim, num_classes, 1)
        self.decoder_focal = focal
        self.decoder_swin = PrototypeDecoder(self.embed_dim)
        self.dropout3 = nn.Dropout2d(dropout_ratio)
        self.store = PrototypeStore(save_path, self.embed_dim)

    def train(self, mode: bool = True) -> CFFMPlusHead:
        """Training mode of the branch; the batch norm of the frozen part keeps its statistics."""
        super().train(mode)
        self.linear_fuse.eval()
        return self

    @property
    def train_frames(self) -> slice:
        """Frames of a clip that the loss needs: the references only feed the constant."""
        return slice(None) if self.log_constant_loss else slice(-1, None)

    # ------------------------------------------------------------------ training

    def train_logits(
        self, feats: Sequence[Tensor], batch_size: int, num_clips: int, prototypes: Any = None, **context: Any
    ) -> tuple[Tensor, Tensor]:
        """A (B, T, K, h, w) without a graph, and P3 (B, 1, K, h, w)."""
        with torch.no_grad():
            fused = self.fuse(feats)
            frame_logits = self.frame_logits(fused).unflatten(0, (batch_size, -1))
        return frame_logits, self._branch_logits(fused.unflatten(0, (batch_size, -1))[:, -1], prototypes)[:, None]

    def _branch_logits(self, fused: Tensor, prototypes: Any) -> Tensor:
        """P3 (B, K, h, w) from F (B, C, h, w)."""
        half = halve(fused)
        mixed = self.decoder_swin(half, self._checked(prototypes, half))
        return resize(self.linear_pred3(self.dropout3(mixed)), fused.shape[-2:])

    def loss(
        self,
        feats: Sequence[Tensor],
        batch_size: int,
        num_clips: int,
        labels: Tensor,
        img_metas: Sequence[dict] | None = None,
        **context: Any,
    ) -> dict[str, Tensor]:
        """Cross entropy of the branch, with or without the constant of the per-frame prediction.

        Args and errors: see :class:`~mmseg.models.decode_heads.clip_head.ClipHead`. Without the constant, `feats` may
        hold the target frames alone.
        """
        if self.log_constant_loss:
            return super().loss(feats, batch_size, num_clips, labels, img_metas, **context)
        self._check_length(num_clips)
        context = self.clip_context(img_metas, context)
        with torch.no_grad():
            fused = self.fuse([feat.unflatten(0, (batch_size, -1))[:, -1] for feat in feats])
        logits = self._branch_logits(fused, context.get("prototypes"))
        losses, correct = self.loss_decode(logits, labels[:, -1, 0])
        return {**losses, "acc_seg": 100 * correct / labels[:, -1].numel()}

    # ------------------------------------------------------------------ one frame after the other

    def decode(
        self,
        target: TargetState,
        references: list[Tensor],
        folded: FoldedCFFM,
        prototypes: Any = None,
        **context: Any,
    ) -> Tensor:
        """P + 0.5 P3 (B, K, h, w)."""
        logits = self._mined_logits(target, references, folded)  # (B, N, K)
        mixed = to_tokens(self.decoder_swin(target.half, self._checked(prototypes, target.half)))
        weight, bias = self.linear_pred3.weight.flatten(1), self.linear_pred3.bias
        logits = logits + linear(mixed, BRANCH_WEIGHT * weight, BRANCH_WEIGHT * bias)
        return self._upsample(logits, target)

    # ------------------------------------------------------------------ where prototypes come from

    def clip_context(self, img_metas: Sequence[dict] | None, context: dict[str, Any]) -> dict[str, Any]:
        """The prototypes of the samples' videos, unless `context` holds them."""
        if context.get("prototypes") is not None or not img_metas:
            return context
        device = self.linear_pred3.weight.device
        return {"prototypes": [self.store.get(_name(meta.get("video")), device, self.training) for meta in img_metas]}

    def stream_context(self, video: str | WholeVideo | None, backbone: nn.Module | None = None) -> dict[str, Any]:
        """The prototypes of the video, from its file; with ``prototypes='auto'`` otherwise from itself.

        Args:
            video: its name, or an object with `name`, `num_frames` and `network_input(t)` if all of it is at hand.
            backbone: what encodes its frames.

        Raises:
            DataError: there is no file, or it does not fit.
        """
        name, weight = getattr(video, "name", video), self.linear_pred3.weight
        if self.prototypes == "files" or (name is not None and self.store.holds(name, weight.device)):
            return {"prototypes": [self.store.get(_name(name), weight.device)]}
        if not hasattr(video, "network_input"):
            return {"prototypes": LivePrototypes(self.n_clusters, video_seed(name or ""))}
        with full_precision(weight):
            centers = whole_video_prototypes(
                video, lambda img: self.cluster_input(backbone(img.to(weight))), self.n_clusters
            )
        self.store.put(name, centers)
        return {"prototypes": [centers]}

    @property
    def export_policy(self) -> dict[str, Any]:
        """How many prototypes a runner makes."""
        return {"prototypes": {"clusters": self.n_clusters}}

    def export_context(self) -> dict[str, Tensor]:
        """As many prototypes as are computed on the fly."""
        return {"prototypes": self.linear_pred3.weight.new_zeros(1, self.n_clusters, self.embed_dim)}

    def observe(self, target: TargetState, context: dict[str, Any]) -> None:
        """Let the prototypes of a live stream take notice of its next frame."""
        if isinstance(context.get("prototypes"), LivePrototypes):
            context["prototypes"].observe(to_tokens(target.half).flatten(0, 1))

    def present(self, context: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`ClipHead.present`: the prototypes of a live stream after its latest frame."""
        prototypes = context.get("prototypes")
        return {"prototypes": [prototypes.centers()]} if isinstance(prototypes, LivePrototypes) else context

    def _checked(self, prototypes: Any, half: Tensor) -> Tensor | list[Tensor]:
        """The prototypes of a batch as (B, n, C) or one (n, C) per sample, with device and type of the weights."""
        if prototypes is None:
            raise ConfigError(
                "CFFM++ without prototypes",
                "prototypes=..., or img_metas with the 'video' of every sample, or a stream of a named video",
                "give one of them, or use a stream with decode_head.prototypes='auto'",
            )
        if not isinstance(prototypes, Tensor):
            prototypes = [rows.reshape(-1, rows.shape[-1]) for rows in prototypes]
        shapes = [tuple(rows.shape) for rows in prototypes]
        if len(shapes) != len(half) or any(len(shape) != 2 or shape[1] != self.embed_dim for shape in shapes):
            raise DataError(
                f"prototypes of shapes {shapes} for a batch of {len(half)}",
                f"(n, {self.embed_dim}) for each sample",
                "use prototypes made with this model's CFFM checkpoint",
            )
        if isinstance(prototypes, Tensor):
            return prototypes.to(self.linear_pred3.weight)
        return [rows.to(self.linear_pred3.weight) for rows in prototypes]


def _name(video: Any) -> str:
    if not isinstance(video, str):
        raise ConfigError(
            "CFFM++ on a video without a name",
            "the name that its prototype file is found by",
            "give video=..., or set decode_head.prototypes='auto'",
        )
    return video
