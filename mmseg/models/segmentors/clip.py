"""Models that look at a clip to predict its last frame: CFFM, CFFM++, MRCFA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.clips import inference_clip
from mmseg.errors import ConfigError
from mmseg.models.base import Segmentor
from mmseg.models.checks import check_view
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.models.exportable import ExportParts, Formula, Part, named_tensors, state_of
from mmseg.models.layers.resize import resize
from mmseg.models.states import select_frames, shapes
from mmseg.models.stream import Pending, Stream
from mmseg.registry import MODELS
from mmseg.structures import Size, View

_MEMORY = "memory_"  # before the names of its tensors in an export


@MODELS.register_module()
class ClipSegmentor(Segmentor):
    """Backbone on every frame, then a :class:`~mmseg.models.decode_heads.clip_head.ClipHead` on the clip."""

    def _check_parts(self) -> None:
        self._require_head(isinstance(self.decode_head, ClipHead), "a head for the last frame of a clip")
        super()._check_parts()

    @property
    def stream_settings(self) -> tuple[str, ...]:
        """``dilation``, and what the head takes besides frames (``prototypes``)."""
        return ("dilation", *self.decode_head.context_keys)

    in_parts = bfloat16_weights = True

    def prepare(self, view: View) -> tuple[Any, Any]:
        """The head's state of a frame, and what later targets need of it."""
        return self.prepare_together([view])[0]

    @torch.no_grad()
    def prepare_together(self, views: Sequence[View]) -> list[tuple[Any, Any]]:
        """See :meth:`VideoModel.prepare_together`."""
        self.require_eval()
        for view in views:
            check_view(self, view.inputs, view.number)
        head, folded = self.decode_head, self.folded()
        target = head.embed(self.backbone(torch.stack([view.inputs["img"] for view in views])), folded)
        both = target, head.remember(target, folded)
        _require_frames(head, both, len(views))
        return [select_frames(both, slice(n, n + 1)) for n in range(len(views))]

    @torch.no_grad()
    def encode_decode(self, imgs: Tensor, img_metas: Sequence[dict] | None = None, **context: Any) -> Tensor:
        """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W), at input size.

        A clip whose length is not the head's `num_clips` gets the per-frame prediction of its last frame.

        Raises:
            ConfigError: the model is in training mode.
        """
        self.require_eval()
        if imgs.shape[1] != self.decode_head.num_clips:
            imgs = imgs[:, -1:]  # the other frames have no influence
        batch_size, num_clips = imgs.shape[:2]
        feats = self.backbone(imgs.flatten(0, 1))
        logits = self.decode_head(feats, batch_size, num_clips, img_metas=img_metas, **context)
        return resize(logits, imgs.shape[-2:])

    def stream(self, video: Any = None, dilation: Sequence[int] | None = None, **context: Any) -> ClipStream:
        """See :meth:`VideoModel.stream`.

        Args:
            video: its name, or the whole video.
            dilation: offsets of the references relative to the target, oldest first; default: the published ones.
            context: what the head takes besides frames, instead of what it would find by the video.
        """
        settings = context if dilation is None else {"dilation": dilation, **context}
        self.check_settings(settings)
        return ClipStream(self, video, tuple(self._dilation(settings)), context)

    @torch.no_grad()
    def export_parts(self, size: Size, **settings: Any) -> ExportParts:
        """See :meth:`VideoModel.export_parts`.

        Parts are ``embed``, from a frame to what its prediction needs and to its entry of the memory; ``decode``, from
        that of a frame and the entries of its references, oldest first (``<name>_0`` ...); and ``single``, for frames
        without references.
        """
        self.check_settings(settings)
        self.require_eval()
        head, folded, img = self.decode_head, self.fold(), torch.zeros(1, 3, *size)
        embedded = head.embed(self.backbone(img), folded)
        entry = head.remember(embedded, folded)
        target, kept = named_tensors(embedded, "target"), _memory(entry)
        reads, alone = ({n: target[n] for n in names or target} for names in (head.decode_reads, head.single_reads))
        references = {f"{name}_{k}": value for k in range(head.num_clips - 1) for name, value in kept.items()}
        context = head.export_context()

        def embed(frames: Tensor) -> tuple[Tensor, ...]:
            state = head.embed(self.backbone(frames), folded)
            values = {**named_tensors(state, "target"), **_memory(head.remember(state, folded))}
            return tuple(values[name] for name in made)

        def decode(*tensors: Tensor) -> Tensor:
            values = dict(zip((*reads, *references, *context), tensors))
            state = state_of(embedded, {name: values.get(name, value) for name, value in target.items()})
            entries = [
                state_of(entry, {name.removeprefix(_MEMORY): values[f"{name}_{k}"] for name in kept})
                for k in range(head.num_clips - 1)
            ]
            return head.decode(state, entries, folded, **{name: values[name] for name in context})

        def single(*tensors: Tensor) -> Tensor:
            return head.decode_single(state_of(embedded, {**target, **dict(zip(alone, tensors))}), folded)

        decode(*reads.values(), *references.values(), *context.values())  # raises for a size that cannot be
        made = tuple(dict.fromkeys((*reads, *alone, *kept)))
        parts = {
            "embed": Part(Formula(self, embed), {"img": img}, made, {"img": {0: "batch"}}),
            "decode": Part(
                Formula(self, decode),
                {**reads, **references, **context},
                ("logits",),
                {name: {1: name} for name in context},
            ),
            "single": Part(Formula(self, single), alone, ("logits",), {name: {0: "batch"} for name in alone}),
        }
        return ExportParts(parts, self._export_policy(tuple(kept), self._dilation(settings)))

    def _export_policy(self, entries: Sequence[str], dilation: Sequence[int]) -> dict[str, Any]:
        """The frames that a frame looks at, as :class:`ClipStream` takes them."""
        early = [inference_clip(t, dilation)[:-1] for t in range(-min(dilation))]
        return {
            "kind": "clip",
            "memory": list(entries),
            "offsets": list(dilation),
            # frames before there are frames at all offsets; [] means `single`
            "early": [clip if len(clip) == len(dilation) else [] for clip in early],
            "keep": -min(dilation),
            **self.decode_head.export_policy,
        }

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError for a setting that the stream does not have, or a dilation that does not fit the head."""
        super().check_settings(settings)
        dilation, references = self._dilation(settings), self.decode_head.num_clips - 1
        if not isinstance(dilation, Sequence) or not all(type(offset) is int for offset in dilation):
            raise ConfigError(f"dilation={dilation!r}", "a list of whole numbers", "write it as [-9, -6, -3]")
        if any(offset >= 0 for offset in dilation) or sorted(set(dilation)) != list(dilation):
            raise ConfigError(
                f"dilation {list(dilation)} for streaming",
                "different offsets of past frames, below 0 and in ascending order",
                "set data.test.dilation to past frames, or use encode_decode on whole clips",
            )
        if len(dilation) != references:
            raise ConfigError(
                f"dilation {list(dilation)} for a head with num_clips={references + 1}",
                f"{references} offsets, one for each reference frame",
                "make data.test.dilation and model.decode_head.num_clips agree",
            )

    def _dilation(self, settings: Mapping[str, Any]) -> Sequence[int]:
        return settings.get("dilation", self.decode_head.default_dilation)


def _memory(entry: Any) -> dict[str, Tensor]:
    """The tensors of an entry of the memory, whose names are not those of a target's."""
    return {f"{_MEMORY}{name}": value for name, value in named_tensors(entry, "entry").items()}


def _require_frames(head: ClipHead, states: Any, count: int) -> None:
    """Raise ConfigError unless axis 0 of all tensors is that of the frames, along which they are cut and joined."""
    for shape, *_ in shapes(states):
        if shape[:1] != (count,):
            raise ConfigError(
                f"a tensor of shape {shape} from {type(head).__name__}.embed or remember for {count} frames",
                f"({count}, ...)",
                "keep axis 0 for the frames in all tensors of a state",
            )


class ClipStream(Stream):
    """Every frame passes the backbone once; what later targets need of it is kept until they have passed."""

    def __init__(self, model: ClipSegmentor, video: Any, dilation: tuple[int, ...], context: dict[str, Any]) -> None:
        self.head, self.dilation, self._video, self._given = model.decode_head, dilation, video, context
        self._references: dict[int, Any] = {}  # frame number -> memory entry, at most `-min(dilation)` of them
        super().__init__(model)

    @torch.no_grad()
    def reset(self) -> None:
        super().reset()
        self._references.clear()
        self._context = self._given or self.head.stream_context(self._video, self.model.backbone)

    def _admit(self, view: View, prepared: tuple[Any, Any]) -> list[Pending]:
        target, memory = prepared
        self.head.observe(target, self._context)
        work = [self._decoder(view.number, target)] if view.wanted else []
        self._references[self.count] = memory
        self._references.pop(self.count + min(self.dilation, default=0), None)
        return work

    def _decoder(self, number: int, target: Any) -> Pending:
        """What computes the scores of the frame whose place is `self.count`, with what is known of the video now."""
        clip = inference_clip(self.count, self.dilation)
        if len(clip) != self.head.num_clips:
            return Pending(number, self.head.decode_single, target, shared=self._folded)
        references = [self._references[place] for place in clip[:-1]]
        context = self.head.present(self._context)
        return Pending(number, self.head.decode, target, references, shared=self._folded, **context)
