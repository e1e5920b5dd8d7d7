"""GSFM (Liu et al., Global Spectral Filter Memory Network for Video Object Segmentation, ECCV 2022).

A frame becomes a key and features; a frame with the masks of its objects becomes memory values. A later frame reads the
values where the keys are similar to its own, and decodes the masks of the objects from what it has read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmseg import values
from mmseg.errors import ConfigError, nearest
from mmseg.models.base import Purpose, VideoModel
from mmseg.models.exportable import ExportParts
from mmseg.models.layers.aggregation import aggregate
from mmseg.models.layers.memory_reading import read_all
from mmseg.models.networks.gsfm.clip_losses import Clip, ClipLoss, Segmented
from mmseg.models.networks.gsfm.conv_blocks import Conv3x3
from mmseg.models.networks.gsfm.encoders import KeyEncoder, ValueEncoder, fused, init_resnet
from mmseg.models.networks.gsfm.exported_parts import exported_parts
from mmseg.models.networks.gsfm.imagenet import ENCODERS, load_imagenet
from mmseg.models.networks.gsfm.mask_decoder import Decoder
from mmseg.models.networks.gsfm.spectral import SpectralModule
from mmseg.models.networks.gsfm.tracking import GSFMStream
from mmseg.registry import MODELS
from mmseg.structures import Size

_FIRST_CONV = "value_encoder.conv1.weight"


class Keys(NamedTuple):
    """What is computed of frames by themselves; any leading axes."""

    key: Tensor  # (..., 64, h, w), h = H/16
    query: Tensor  # (..., 512, h, w): the query's own value
    f16: Tensor  # (..., 1024, h, w), low frequencies
    f8: Tensor  # (..., 512, 2h, 2w)
    f4: Tensor  # (..., 256, 4h, 4w)


class StreamCfg(values.Keys, total=False):
    """Settings of the streams, see :meth:`GSFM.stream`."""

    mem_every: values.PositiveInt
    top_k: values.PositiveInt
    include_last: bool
    max_memory_frames: values.PositiveInt | None


class KeyProjection(nn.Module):
    """From features to keys."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.key_proj = Conv3x3(in_channels, channels)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(self.key_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C, h, w)."""
        return self.key_proj(x)


@MODELS.register_module()
class GSFM(VideoModel):
    """Follows objects through a video from masks that are given on some of its frames.

    Args:
        single_object: for training on clips with one object: the value encoder has no mask of the others.
        bootstrap: arguments of :class:`BootstrappedCrossEntropy` (`start_warm`, `end_warm`, `least`).
        boundary_weight: factor of the boundary loss.
        pretrained: ImageNet weights in torchvision's format, ``dict(key_encoder=FILE, value_encoder=FILE)`` of a
            ResNet-50 and a ResNet-18.
        norm_eval: batch norm keeps its statistics in training, as published, which takes encoders that have some: of
            `pretrained`, or of a checkpoint. False for a training from random weights.
        test_cfg: settings of the streams, see :meth:`stream`.

    Raises:
        ConfigError: an unknown key or a value that cannot work.
        CheckpointError: a file of `pretrained` that does not fit.
    """

    stream_settings = ("mem_every", "top_k", "include_last", "max_memory_frames")
    batch_keys = ("img", "gt_semantic_seg")
    view_inputs = ("img", "given", "objects")
    score_kind = "probabilities"

    def __init__(
        self,
        single_object: bool = False,
        bootstrap: Mapping[str, Any] | None = None,
        boundary_weight: values.NonNegativeFloat = 0.05,
        pretrained: Mapping[str, str] | None = None,
        norm_eval: bool = True,
        test_cfg: StreamCfg | None = None,
    ) -> None:
        super().__init__()
        self.num_objects = 1 if single_object else 2  # of a training clip
        self.norm_eval = norm_eval
        self.synchronised_norms = () if norm_eval else ("",)
        self.losses = ClipLoss(bootstrap or {}, boundary_weight)
        self.test_cfg = dict(test_cfg or {})
        self.key_encoder = KeyEncoder()
        self.value_encoder = ValueEncoder(single_object)
        self.key_proj = KeyProjection(1024, 64)
        self.key_comp = Conv3x3(1024, 512)
        self.decoder = Decoder()
        self.lfm = SpectralModule(1024, high=False)
        self._init_encoders()
        if pretrained:
            self.load_pretrained(pretrained)

    def _init_encoders(self) -> None:
        init_resnet(self.key_encoder)
        init_resnet(self.value_encoder)
        nn.init.orthogonal_(self.value_encoder.conv1.weight.data[:, 3:])

    def load_pretrained(self, path: Mapping[str, str]) -> None:
        """Load ImageNet weights of the encoders.

        Args:
            path: ``dict(key_encoder=FILE, value_encoder=FILE)``, one of them or both.
        """
        for name, file in path.items():
            if name not in ENCODERS:
                raise ConfigError(
                    f"model.pretrained.{name}", f"files for {', '.join(ENCODERS)}", nearest(name, ENCODERS)
                )
            load_imagenet(getattr(self, name), file, ENCODERS[name])

    def train(self, mode: bool = True) -> GSFM:
        """Training mode; for batch norm, too, with `norm_eval=False` only."""
        super().train(mode)
        if not self.norm_eval:
            return self
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    # ------------------------------------------------------------------ weights

    def adapt_weights(self, state: dict[str, Tensor], purpose: Purpose) -> dict[str, Tensor]:
        """Weights of a single-object network for one of several objects get a channel for the mask of the others.

        In testing it has no influence; a training starts from an orthogonal one (GSFM specification, section 10).
        """
        weight, channels = state.get(_FIRST_CONV), self.value_encoder.conv1.in_channels
        missing = channels - weight.shape[1] if isinstance(weight, Tensor) and weight.ndim == 4 else 0
        if missing != 1 or purpose == "resume":
            return state
        extra = weight.new_zeros(len(weight), 1, *weight.shape[2:])
        if purpose != "test":
            nn.init.orthogonal_(extra)
        return {**state, _FIRST_CONV: torch.cat([weight, extra], dim=1)}

    def fold(self) -> dict[str, nn.Module]:
        """The encoders with batch norm in their convolutions."""
        return {"key_encoder": fused(self.key_encoder), "value_encoder": fused(self.value_encoder)}

    def compile_parts(self, **options: Any) -> None:
        """Both encoders and the decoder."""
        for part in (self.key_encoder, self.value_encoder, self.decoder):
            part.compile(**options)

    # ------------------------------------------------------------------ the parts at work

    def encode_key(self, frames: Tensor, encoder: nn.Module | None = None) -> Keys:
        """Key and features of frames (n, 3, H, W), normalised, of sides that 16 divides.

        Args:
            encoder: a folded key encoder.
        """
        f4, f8, f16 = (encoder or self.key_encoder)(frames)
        f16 = self.lfm(f16).to(f16.dtype)
        return Keys(self.key_proj(f16), self.key_comp(f16), f16, f8, f4)

    def stream(
        self,
        video: Any = None,
        mem_every: int = 3,
        top_k: int = 50,
        include_last: bool = False,
        max_memory_frames: int | None = None,
    ) -> GSFMStream:
        """A new stream for the frames of one video, in order; masks are given with any of them.

        Args:
            video: without effect.
            mem_every: a frame is remembered when the last one that was is this far back.
            top_k: memory positions that each position of a frame reads.
            include_last: also remember the last frame, until the next one.
            max_memory_frames: bound of the memory; then the oldest frame but the first of an object leaves. None keeps
                all, as the published policy does.

        Raises:
            ConfigError: the model is in training mode, or a setting is no positive number.
        """
        settings = dict(
            mem_every=mem_every, top_k=top_k, include_last=include_last, max_memory_frames=max_memory_frames
        )
        self.check_settings(settings)
        return GSFMStream(self, **settings)

    def export_parts(self, size: Size, **settings: Any) -> ExportParts:
        """See :meth:`VideoModel.export_parts`, and :mod:`mmseg.models.networks.gsfm.exported_parts`."""
        stream = self.stream(**settings)  # has the settings that are not given
        return exported_parts(self, size, {name: getattr(stream, name) for name in self.stream_settings})

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for settings that :meth:`stream` would refuse."""
        super().check_settings(settings)
        for name, value in settings.items():
            if name == "include_last":
                sound, expected = isinstance(value, bool), "True or False"
            else:
                sound = (type(value) is int and value > 0) or (value is None and name == "max_memory_frames")
                expected = "an integer of at least 1" + (", or None" if name == "max_memory_frames" else "")
            if not sound:
                raise ConfigError(f"{name}={value!r} for a stream of GSFM", expected, f"fix {name}")

    # ------------------------------------------------------------------ training

    def encode_decode(self, imgs: Tensor, *_: Any, **__: Any) -> Tensor:
        """Raises ConfigError: nothing in a clip says which objects are meant."""
        raise ConfigError(
            f"encode_decode of {type(self).__name__}, which follows objects from masks",
            "a stream: frames one by one, and the masks that are given for some of them",
            "call model.stream(), or mmseg.apis.VideoStream(model).step(frame, mask=mask)",
        )

    def loss(self, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
        """Losses of a batch of clips of three frames (GSFM specification, sections 6 and 7.1).

        Frame 1 is segmented from the masks of frame 0; frame 2 from those and what was predicted for frame 1.

        Args:
            batch: ``img`` (B, 3, 3, H, W), normalised; ``gt_semantic_seg`` (B, 3, 1, H, W) int64, 0 for background, 1
                and 2 for the objects; optionally ``gt`` (B, 3, 1, H, W), a soft mask of object 1, and ``selector``
                (B, 2), 1 for objects that a clip has (default: those of its first frame; object 1 always counts).
            iteration: number of the update, counted from 0.

        Returns:
            ``loss_1`` and ``loss_2`` of the two frames, whose sum is the loss; ``p``, the share of pixels that count;
            ``hide_iou/i`` and ``hide_iou/u``, pixels in intersection and union of masks, ``hide_iou/sec_i`` and
            ``hide_iou/sec_u`` for object 2.
        """
        clip = Clip.of(batch, self.num_objects)
        frames, masks, selector = clip.frames, clip.masks, clip.selector
        keys = self.encode_key(frames.flatten(0, 1))
        keys = [Keys(*(part.unflatten(0, frames.shape[:2])[:, t] for part in keys)) for t in range(3)]
        memory = [self.value_encoder(frames[:, 0], keys[0].f16, masks[:, 0])]  # (B, k, 512, h, w) of each frame
        first = self._segment(keys[1], keys[:1], memory, selector)
        memory.append(self.value_encoder(frames[:, 1], keys[1].f16, first.probabilities.to(frames.dtype)))
        second = self._segment(keys[2], keys[:2], memory, selector)
        return self.losses([first, second], clip, iteration)

    def _segment(self, query: Keys, keys: Sequence[Keys], memory: Sequence[Tensor], selector: Tensor) -> Segmented:
        """Segment frames from a memory of others."""
        readout = read_all(
            torch.stack([key.key for key in keys], dim=2).flatten(2),  # (B, 64, N)
            torch.stack(list(memory), dim=3).flatten(3),  # (B, k, 512, N)
            query.key.flatten(2),
        )
        readout = readout.unflatten(-1, query.key.shape[-2:])  # (B, k, 512, h, w)
        masks, boundaries = self.decoder(readout, query.query, query.f8, query.f4)
        present = selector[:, :, None, None]
        logits, probabilities = aggregate(masks.sigmoid() * present, dim=1)
        return Segmented(logits, probabilities[:, 1:], boundaries * present)
