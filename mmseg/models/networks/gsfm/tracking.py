"""The stream of GSFM: which frames are remembered, and what happens where a mask is given.

One policy serves DAVIS and YouTube-VOS (GSFM specification, sections 3 and 4): a frame is remembered when the last one
that was is `mem_every` frames back, or when a mask is given with it. It is encoded when the next frame comes, so that
the last frame of a video never is, and nobody has to know which one that is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError, DataError
from mmseg.models.layers import full_precision
from mmseg.models.layers.aggregation import aggregate
from mmseg.models.layers.padding import Margins, centred_margins, pad, unpad
from mmseg.models.networks.gsfm.memory_bank import MemoryBank
from mmseg.models.stream import Stream
from mmseg.structures import Scores, View

if TYPE_CHECKING:
    from mmseg.models.networks.gsfm.network import GSFM, Keys

LARGEST_ID = 255  # label maps are 8-bit
DIVISOR = 16  # of the sides of what the network sees


@dataclass
class _Group:
    """Objects that were first given on the same frame: they have the same frames in memory."""

    ids: list[int]
    bank: MemoryBank


@dataclass
class _Pending:
    """The current frame, which is to be remembered when the next one comes."""

    frame: Tensor  # (1, 3, H, W), padded
    keys: Keys
    masks: Tensor  # (k, H, W) probabilities of the objects at present
    temporary: bool


@dataclass
class _Given:
    """A mask that is shown to the model."""

    labels: Tensor  # (H, W), padded
    ids: tuple[int, ...]


class GSFMStream(Stream):
    """Follows objects from the masks that are given on any of the frames of a video.

    A mask may bring new objects, or give one that is followed already a new mask. Rows of the results are background
    and the objects in the order in which they came. The memory of an object begins with the frame on which it came.

    A position of a frame in memory (one of H/16 * W/16) takes ``4 * (65 * g + 512 * k)`` bytes in float32, for k
    objects that came on g frames. Of past frames nothing else is kept.

    Args:
        model: in eval mode.
        mem_every, top_k, include_last, max_memory_frames: see :meth:`GSFM.stream`.
    """

    def __init__(
        self, model: GSFM, mem_every: int, top_k: int, include_last: bool, max_memory_frames: int | None
    ) -> None:
        self.mem_every, self.top_k, self.include_last = mem_every, top_k, include_last
        self.max_memory_frames = max_memory_frames
        super().__init__(model)

    def reset(self) -> None:
        super().reset()
        self._groups: list[_Group] = []
        self._pending: _Pending | None = None
        self._last_memory = 0  # number of the last frame that is remembered for good

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects that are followed, in order of appearance."""
        return tuple(number for group in self._groups for number in group.ids)

    def remove(self, ids: Iterable[int]) -> None:
        """Stop following objects; the memory forgets them.

        Raises:
            ConfigError: one of them is not followed.
        """
        gone, followed = list(ids), self.ids
        for number in gone:
            if number not in followed:
                raise ConfigError(f"remove({gone}): object {number}", f"ids from {list(followed)}", "see stream.ids")
        if self._pending is not None:
            kept = [row for row, number in enumerate(followed) if number not in gone]
            self._pending.masks = self._pending.masks[kept]
        for group in self._groups:
            rows = [row for row, number in enumerate(group.ids) if number not in gone]
            if 0 < len(rows) < len(group.ids) and len(group.bank):
                width = group.bank.width // len(group.ids)
                group.bank.keep([slice(row * width, (row + 1) * width) for row in rows])
            group.ids = [group.ids[row] for row in rows]
        self._groups = [group for group in self._groups if group.ids]
        if not self._groups:
            self._pending = None

    # ------------------------------------------------------------------ a frame

    def _take(self, view: View) -> list[Scores]:
        img = view.inputs["img"]
        margins = centred_margins(*img.shape[-2:], DIVISOR)
        given = self._given(view.inputs, margins)
        self._remember()
        if not self._groups and given is None:  # nothing is followed
            return [Scores(view.number, None, self.model.score_kind)] if view.wanted else []
        is_due = self.count - self._last_memory >= self.mem_every
        if not (view.wanted or is_due or self.include_last or given is not None):
            return []
        frame = pad(img[None], margins)
        keys = self.model.encode_key(frame, self._folded["key_encoder"])
        probabilities = self._probabilities(keys, given, frame)  # (k + 1, H, W)
        if given is not None or is_due:
            self._last_memory = self.count
        if given is not None or is_due or self.include_last:
            temporary = given is None and not is_due
            own = frame if any(margins) else frame.clone()  # the caller may write the next frame into this one's place
            self._pending = _Pending(own, keys, probabilities[1:].clone(), temporary)  # and into the results
        if not view.wanted:
            return []
        return [Scores(view.number, unpad(probabilities, margins), self.model.score_kind, (0, *self.ids))]

    def _given(self, inputs: dict[str, Any], margins: Margins) -> _Given | None:
        """The mask of a view, checked; None where there is none, or one that says nothing."""
        labels = inputs.get("given")
        if labels is None:
            return None
        if labels.shape != inputs["img"].shape[-2:]:
            raise DataError(
                f"frame {self.count}: a mask {tuple(labels.shape)} for a frame {tuple(inputs['img'].shape[-2:])}",
                "a mask as large as its frame",
                "resize it with nearest neighbour",
            )
        objects = inputs.get("objects")
        ids = tuple(dict.fromkeys(labels.unique().tolist() if objects is None else map(int, objects)))
        ids = tuple(number for number in ids if number)
        wrong = [number for number in ids if not 0 < number <= LARGEST_ID]
        if wrong:
            raise DataError(
                f"frame {self.count}: object ids {wrong[:5]}",
                f"1 to {LARGEST_ID}, label maps are 8-bit",
                "renumber the objects",
            )
        return _Given(pad(labels, margins), ids) if ids or self._groups else None

    def _probabilities(self, keys: Keys, given: _Given | None, frame: Tensor) -> Tensor:
        """(k + 1, H, W): background and objects, those of `given` included, which are followed from now on."""
        size, dtype = frame.shape[-2:], torch.float64 if frame.dtype is torch.float64 else torch.float32
        masks = frame.new_zeros(0, *size, dtype=dtype)
        if self._groups:
            logits = self.model.decoder(self._readout(keys), keys.query, keys.f8, keys.f4, boundaries=False).masks[0]
            with full_precision(frame):
                _, probabilities = aggregate(logits.to(dtype).sigmoid())
            if given is None:
                return probabilities
            masks = probabilities[1:]
        new = [number for number in given.ids if number not in self.ids]
        if new:
            self._groups.append(_Group(new, MemoryBank(self.max_memory_frames)))
        masks = torch.cat([masks, masks.new_zeros(len(new), *size)])
        is_given = [given.labels == number for number in given.ids]
        for region in is_given:
            masks.masked_fill_(region, 0.0)
        for number, region in zip(given.ids, is_given):
            masks[self.ids.index(number)] = region.to(dtype)
        return aggregate(masks)[1]

    # ------------------------------------------------------------------ memory

    def _readout(self, keys: Keys) -> Tensor:
        """(1, k, 512, h, w): what the objects have in memory at places like those of the frame."""
        queries = positions(keys.key[0])  # (h * w, 64)
        with full_precision(queries):
            parts = [group.bank.read(queries, self.top_k).unflatten(1, (len(group.ids), -1)) for group in self._groups]
        readout = torch.cat(parts, dim=1)  # (h * w, k, 512)
        return readout.permute(1, 2, 0).unflatten(2, keys.key.shape[-2:])[None].to(keys.query.dtype)

    def _remember(self) -> None:
        """Put the frame before this one into the memory, if that is due."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        masks = pending.masks[None].to(pending.frame.dtype)  # (1, k, H, W)
        values = self._folded["value_encoder"](pending.frame, pending.keys.f16, masks)[0]  # (k, 512, h, w)
        keys, row = positions(pending.keys.key[0]), 0
        for group in self._groups:
            own = values[row : row + len(group.ids)]  # (k', 512, h, w)
            group.bank.add(keys, own.flatten(2).flatten(0, 1).T, pending.temporary)
            row += len(group.ids)


def positions(key: Tensor) -> Tensor:
    """(C, h, w) -> (h * w, C), at least in float32."""
    key = key if key.dtype is torch.float64 else key.float()
    return key.flatten(1).T.contiguous()
