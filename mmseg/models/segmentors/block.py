"""Models that predict all frames of a clip together, block after block of a video: THE-Mask."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.clips import block_clips, rest_clips
from mmseg.errors import CheckpointError, ConfigError
from mmseg.models.base import Purpose, Segmentor
from mmseg.models.decode_heads.themask.head import MaskHead
from mmseg.models.decode_heads.themask.pixel_decoder import PixelMaps, joined
from mmseg.models.exportable import ExportParts, Formula, Part
from mmseg.models.layers.resize import resize
from mmseg.models.stream import Stream
from mmseg.registry import MODELS
from mmseg.structures import Scores, Size, View

logger = logging.getLogger("mmseg.models")

TEST_SIZES = (1, 2, 4)  # frames of a clip
_PREDICTOR = "decode_head.predictor."


@MODELS.register_module()
class BlockSegmentor(Segmentor):
    """Backbone on every frame, then a :class:`~mmseg.models.decode_heads.themask.head.MaskHead` on clips of frames."""

    stream_settings = ("test_size",)
    score_kind = "scores"  # sums over queries
    finetune_trains = "predictor"  # the query decoder; frozen parts stay in training mode, drop path and all

    def _check_parts(self) -> None:
        self._require_head(isinstance(self.decode_head, MaskHead), "a head that predicts all frames of a clip")
        super()._check_parts()
        made, taken = getattr(self.backbone, "out_channels", None), self.decode_head.input_channels
        if made is not None and tuple(made) != taken:
            raise ConfigError(
                f"model.decode_head.input_shape with channels {list(taken)} after a {type(self.backbone).__name__}",
                f"{list(made)}, the channels of its maps",
                "set model.decode_head.input_shape, or model.backbone.type",
            )

    def check_training_clips(self, num_frames: int, place: str) -> None:
        """See :meth:`VideoModel.check_training_clips`."""
        if num_frames != self.decode_head.predictor.num_frames:
            raise ConfigError(
                f"{place}, clips of {num_frames} frame(s), with "
                f"model.decode_head.transformer_decoder_cfg.num_frames = {self.decode_head.predictor.num_frames}",
                "dilation [0] with num_frames=1, [-3] with num_frames=2, [-9, -6, -3] with num_frames=4",
                "make the two keys agree",
            )

    def adapt_weights(self, state: dict[str, Tensor], purpose: Purpose) -> dict[str, Tensor]:
        """Entries of a checkpoint of this model; for fine-tuning the video model, of the one-frame model as well.

        The final norm of the one-frame model has no place in the video model, whose own start new, as released.

        Raises:
            CheckpointError: a checkpoint of the one-frame model, for the video model and anything but fine-tuning; one
                of the video model, for the one-frame model and anything but the start of a training of all of it.
        """
        norm, own = f"{_PREDICTOR}decoder_norm.weight", self.state_dict()
        if norm in own and f"{_PREDICTOR}decoder_norm1.weight" in state and purpose != "train":
            raise CheckpointError(
                "a checkpoint of the video model of THE-Mask, for the one-frame model",
                "a checkpoint of the one-frame model",
                "use a config of the video model (local_configs/themask/video_*.py), or another checkpoint",
            )
        if norm in own or norm not in state:
            return state
        if purpose != "finetune":
            raise CheckpointError(
                "a checkpoint of the one-frame model of THE-Mask, for the video model",
                "a checkpoint of the video model",
                "train the video model from this one first: tools/train.py ... --finetune-from FILE (docs/themask.md)",
            )
        mapped = {name: value for name, value in state.items() if name in own}
        new = sorted({name.removeprefix(_PREDICTOR).split(".")[0] for name in own if name not in state})
        logger.info(
            "one-frame model: %d of its %d entries are mapped to those of the same name, %s.{weight,bias} has no place "
            "in the video model; new are the %d entries of %s",
            *(len(mapped), len(state), norm.removesuffix(".weight"), len(own) - len(mapped), ", ".join(new)),
        )
        return mapped

    @torch.no_grad()
    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Scores (B, T, K, H, W) of all frames of clips `imgs` (B, T, 3, H, W), at input size.

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        scores = self.decode_head(self.backbone(imgs.flatten(0, 1)), *imgs.shape[:2])
        return resize(scores.flatten(0, 1), imgs.shape[-2:]).unflatten(0, imgs.shape[:2])

    def stream(self, video: Any = None, test_size: int = 1) -> BlockStream:
        """See :meth:`VideoModel.stream`.

        Args:
            video: its name, or the whole video; not looked at.
            test_size: frames that are predicted together; with 1 every frame is answered at once, with 2 and 4 a block
                of 6 and 12 frames is.
        """
        self.check_settings({"test_size": test_size})
        return BlockStream(self, test_size)

    @torch.no_grad()
    def export_parts(self, size: Size, test_size: int = 1) -> ExportParts:
        """See :meth:`VideoModel.export_parts`.

        Parts are ``embed``, from frames to what a clip needs of each, and ``decode``, from that of the frames of a clip
        (axis 0), of any number, to their scores.
        """
        self.check_settings({"test_size": test_size})
        self.require_eval()
        head, img = self.decode_head, torch.zeros(1, 3, *size)

        def embed(frames: Tensor) -> tuple[Tensor, ...]:
            maps = head.embed(self.backbone(frames))
            return (*maps.levels, maps.mask_features)

        def decode(*maps: Tensor) -> Tensor:
            return head.decode(PixelMaps(maps[:-1], maps[-1]), maps[-1].shape[0])[0]

        example = embed(img)
        kept = (*(f"level_{number}" for number in range(len(example) - 1)), "mask_features")
        maps = {name: torch.cat([value, value]) for name, value in zip(kept, example)}
        parts = {
            "embed": Part(Formula(self, embed), {"img": img}, kept, {"img": {0: "batch"}}),
            "decode": Part(Formula(self, decode), maps, ("scores",), {name: {0: "frames"} for name in kept}),
        }
        clips = block_clips(test_size)
        policy = {"kind": "block", "memory": list(kept), "clips": clips, "rest": test_size, "late": test_size > 1}
        return ExportParts(parts, policy)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for a setting that the stream does not have, or a size that gives no clips."""
        super().check_settings(settings)
        size = settings.get("test_size", 1)
        if type(size) is not int or size not in TEST_SIZES:
            raise ConfigError(
                f"test_size={size!r}: the frames of a video cannot be cut into such clips",
                f"one of {', '.join(map(str, TEST_SIZES))}",
                "set data.test.test_size to the frames of a clip",
            )


class BlockStream(Stream):
    """Every frame passes backbone and pixel decoder once; a block of them is decoded when its last frame has come.

    No clip may be decoded earlier: a block that stays incomplete is cut into clips in another way.
    """

    at_once = "iterate over what they return, or set test_size=1"

    def __init__(self, model: BlockSegmentor, test_size: int) -> None:
        self.head, self.test_size = model.decode_head, test_size
        self.clips = block_clips(test_size)
        self.answers_at_once = test_size == 1
        self.block_length = sum(map(len, self.clips))
        super().__init__(model)

    def reset(self) -> None:
        super().reset()
        self._views: list[View] = []  # of the open block, without their pictures
        self._maps: list[PixelMaps] = []  # what the head needs of them

    def _take(self, view: View) -> Iterable[Scores]:
        self._maps.append(self.head.embed(self.model.backbone(view.inputs["img"][None]), self._folded))
        self._views.append(View(view.number, {}, wanted=view.wanted))
        if len(self._views) < self.block_length:
            return []
        answers = self._decoded(self.clips)
        return list(answers) if self.answers_at_once else answers

    def _rest(self) -> Iterable[Scores]:
        return self._decoded(rest_clips(len(self._views), self.test_size)) if self._views else []

    def _decoded(self, clips: Sequence[Sequence[int]]) -> Iterator[Scores]:
        """Scores of the wanted frames of the open block, in order; it is closed."""
        views, maps = self._views, self._maps
        self._views, self._maps = [], []
        return self._in_order(views, maps, clips)

    def _in_order(self, views: list[View], maps: list[PixelMaps], clips: Sequence[Sequence[int]]) -> Iterator[Scores]:
        """A clip is decoded when the first of its wanted frames is due, and what it was made of is forgotten."""
        clip_of = {place: clip for clip in clips for place in clip}
        done: dict[int, Tensor] = {}
        for place, view in enumerate(views):
            clip = clip_of[place]
            if view.wanted and place not in done:
                scores = self.head.decode(joined([maps[p] for p in clip]), len(clip), self._folded)[0]
                done.update(zip(clip, scores))
                for p in clip:
                    maps[p] = None
            if view.wanted:
                yield Scores(view.number, done.pop(place), self.model.score_kind)
