"""THE-Mask (BMVC 2023): every query is a class and a mask, and their sum is the segmentation of all frames of a clip.

Maps of the backbone -> pixel decoder, frame by frame -> query decoder, clip by clip -> scores. The two heads differ in
their query decoder: that of the first stage has one set of queries, that of the second, for videos, one for the clip
and one for every frame.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.cpu.linear import products
from mmseg.models.decode_heads.themask.criterion import HierarchicalCriterion, without_effect
from mmseg.models.decode_heads.themask.decoder import FrameQueryDecoder
from mmseg.models.decode_heads.themask.pixel_decoder import MapShape, PixelMaps
from mmseg.models.decode_heads.themask.prediction import Prediction
from mmseg.models.decode_heads.themask.video_decoder import VideoQueryDecoder
from mmseg.models.layers import full_precision
from mmseg.registry import MODELS, absolute, build, check_arguments
from mmseg.values import NumClasses

logger = logging.getLogger("mmseg.models")

_NAMES = ("res2", "res3", "res4", "res5")


class MaskHead(nn.Module):
    """What the heads of both stages share.

    Args:
        num_classes: K.
        input_shape: name -> ``dict(channels=..., stride=...)`` of the backbone's maps.
        pixel_decoder_cfg: config of the pixel decoder.
        transformer_decoder_cfg: config of the query decoder.
        loss_cfg: arguments of :class:`HierarchicalCriterion`.
        in_features: names of the backbone's maps, finest first.
        in_index: must select the four maps in order.
        ignore_value: label of pixels without a class, which are in no mask.

    Attributes:
        input_channels: channels of the backbone's maps.
        num_clips: frames of a training clip.
        segmentor, compiled_methods, compiled_constants, context_keys, frozen_backbone, train_frames: see
            :class:`~mmseg.models.decode_heads.base.FusionHead`.

    Raises:
        ConfigError: values that do not fit together.
    """

    decoder_type: type[nn.Module]  # of the query decoder
    segmentor = "BlockSegmentor"
    for_videos: bool  # whether frames have queries and losses of their own
    compiled_methods: tuple[str, ...] = ("predictions",)
    compiled_constants: tuple[Callable[..., Any], ...] = ()
    context_keys: tuple[str, ...] = ("iteration",)
    frozen_backbone = False
    train_frames = slice(None)

    def __init__(
        self,
        num_classes: NumClasses,
        input_shape: Mapping[str, MapShape],
        pixel_decoder_cfg: Mapping[str, Any],
        transformer_decoder_cfg: Mapping[str, Any],
        loss_cfg: Mapping[str, Any] | None = None,
        in_features: Sequence[str] = _NAMES,
        in_index: Sequence[int] = (0, 1, 2, 3),
        ignore_value: Literal[255] = 255,
    ) -> None:
        super().__init__()
        shapes = _shapes(input_shape, in_features, in_index)
        self.num_classes, self.ignore_index = num_classes, ignore_value
        self.input_channels = tuple(shape["channels"] for shape in shapes.values())
        pixel_decoder = build(MODELS, pixel_decoder_cfg, "pixel_decoder_cfg", input_shape=shapes)
        predictor = build(MODELS, transformer_decoder_cfg, "transformer_decoder_cfg")
        self._check_decoders(pixel_decoder, predictor)
        self.num_clips: int = predictor.num_frames
        self.conv_seg = nn.Conv2d(predictor.hidden_dim, num_classes, 1)  # unused, part of the published files
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.criterion = self._criterion(dict(loss_cfg or {}))

    def _check_decoders(self, pixel_decoder: nn.Module, predictor: nn.Module) -> None:
        """Raise ConfigError unless the three parts fit."""
        if not isinstance(predictor, self.decoder_type):
            raise ConfigError(
                f"transformer_decoder_cfg.type = {type(predictor).__name__!r} in a {type(self).__name__}",
                self.decoder_type.__name__,
                "set transformer_decoder_cfg.type, or the type of the head",
            )
        if predictor.num_classes != self.num_classes:
            raise ConfigError(
                f"num_classes={self.num_classes}, but transformer_decoder_cfg.num_classes={predictor.num_classes}",
                "one number",
                "set both",
            )
        made, taken = (pixel_decoder.conv_dim, pixel_decoder.mask_dim), (predictor.hidden_dim, predictor.mask_dim)
        if made != taken:
            raise ConfigError(
                f"pixel_decoder_cfg with conv_dim={made[0]}, mask_dim={made[1]} before transformer_decoder_cfg with "
                f"CONVS_DIM={taken[0]}, MASK_DIM={taken[1]}",
                "the same channels in both",
                "make them equal",
            )

    def _criterion(self, loss_cfg: dict[str, Any]) -> HierarchicalCriterion:
        predictions = self.predictor.num_layers + 1
        if (layers := loss_cfg.get("dec_layers", predictions)) != predictions:
            logger.warning(
                "%s = %r has no effect: the query decoder makes %d predictions, one before its first layer and one "
                "after each, and a loss is taken of all",
                *(absolute("loss_cfg.dec_layers"), layers, predictions),
            )
        own = {"num_classes": self.num_classes, "video": self.for_videos}
        criterion = HierarchicalCriterion(**check_arguments(HierarchicalCriterion, loss_cfg, absolute("loss_cfg"), own))
        for key, value, reason in without_effect(loss_cfg, self.for_videos):
            logger.warning("%s = %r has no effect: %s", absolute(f"loss_cfg.{key}"), value, reason)
        return criterion

    # ------------------------------------------------------------------ inference

    def fold(self) -> None:
        """Nothing is computed from the weights alone."""

    def embed(self, feats: Sequence[Tensor], folded: Any = None) -> PixelMaps:
        """Once per frame: what the query decoder needs of n frames."""
        return self.pixel_decoder(feats)

    def decode(self, maps: PixelMaps, num_frames: int, folded: Any = None) -> Tensor:
        """Scores (B, T, K, h, w) of clips of T frames, from the maps of all their frames, clip after clip.

        The score of a class is the sum over queries of their probability of it times that of the pixel; not normalised.
        """
        batch_size = maps.mask_features.shape[0] // num_frames
        final = self.predictor(maps, batch_size, num_frames, every=False)[-1]
        scores = class_scores(final.logits, final.masks.transpose(1, 2))
        if final.frame_logits is None:
            return scores
        of_frames = class_scores(final.frame_logits, final.frame_masks.transpose(1, 2))[:, 0]
        return scores.add_(of_frames.unflatten(0, (batch_size, num_frames))).mul_(0.5)

    def forward(self, feats: Sequence[Tensor], batch_size: int = 1, num_clips: int | None = None) -> Any:
        """Predictions in training, scores (B, T, K, h, w) in eval mode, of clips of `num_clips` frames.

        Args:
            feats: maps [(B * T, C_s, h_s, w_s)], finest first, clip after clip.
        """
        num_clips = num_clips or len(feats[0]) // batch_size
        if self.training:
            return self.predictions(feats, batch_size, num_clips)
        return self.decode(self.embed(feats), num_clips)

    # ------------------------------------------------------------------ training

    def predictions(self, feats: Sequence[Tensor], batch_size: int, num_clips: int) -> list[Prediction]:
        """A prediction before the first layer and one after each, the last being the result."""
        trained = any(parameter.requires_grad for parameter in self.pixel_decoder.parameters())
        moved = any(feat.requires_grad for feat in feats)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (trained or moved)):
            maps = self.embed(feats)
        return self.predictor(maps, batch_size, num_clips, every=True)

    def loss(
        self,
        feats: Sequence[Tensor],
        batch_size: int,
        num_clips: int,
        labels: Tensor,
        img_metas: Sequence[dict] | None = None,
        iteration: int = 0,
    ) -> dict[str, Tensor]:
        """Losses of all predictions, by name.

        Args:
            labels: (B, T, 1, H, W) int64.
            iteration: number of the update, counted from 0.

        Raises:
            ConfigError: clips of another length than the query decoder's `num_frames`.
            DataError: labels that it cannot learn.
        """
        if num_clips != self.predictor.num_frames:
            raise ConfigError(
                f"training clips of {num_clips} frames with "
                f"model.decode_head.transformer_decoder_cfg.num_frames={self.predictor.num_frames}",
                "one frame for dilation [0], and one more for each other entry of data.train.dataset.dilation",
                "make the two keys agree: num_frames=2 with dilation=[-3], num_frames=4 with [-9, -6, -3]",
            )
        return self.criterion(self.predictions(feats, batch_size, num_clips), labels, iteration)


def class_scores(logits: Tensor, masks: Tensor) -> Tensor:
    """Scores (n, T, K, h, w) of class logits (n, Q, K + 1) and mask logits (n, T, Q, h, w)."""
    with full_precision(masks):
        exact = torch.promote_types(masks.dtype, torch.float32)
        probabilities = logits.to(exact).softmax(dim=-1)[..., :-1].transpose(1, 2)  # (n, K, Q): no object is no class
        pixels = masks.to(exact).sigmoid().flatten(3).transpose(2, 3)  # (n, T, h * w, Q)
        scores = products(probabilities.repeat_interleave(masks.shape[1], dim=0), pixels.flatten(0, 1))
        return scores.unflatten(0, masks.shape[:2]).unflatten(3, masks.shape[-2:])


def _shapes(
    input_shape: Mapping[str, MapShape], in_features: Sequence[str], in_index: Sequence[int]
) -> dict[str, MapShape]:
    """`input_shape` in the order of the backbone's maps."""
    if list(in_index) != [0, 1, 2, 3]:
        raise ConfigError(f"in_index={list(in_index)}", "[0, 1, 2, 3]", "give the four maps of the backbone in order")
    if sorted(in_features) != sorted(input_shape):
        raise ConfigError(
            f"in_features={list(in_features)} with an input_shape of {', '.join(input_shape)}",
            "the same names in both",
            "correct model.decode_head.input_shape",
        )
    return {name: input_shape[name] for name in in_features}


@MODELS.register_module()
class THEMaskFrameHead(MaskHead):
    """Stage 1: the one-frame model; frames of a clip share one set of queries."""

    decoder_type, for_videos = FrameQueryDecoder, False


@MODELS.register_module()
class THEMaskVideoHead(MaskHead):
    """Stage 2: queries of the clip and of its frames; their scores are averaged."""

    decoder_type, for_videos = VideoQueryDecoder, True
