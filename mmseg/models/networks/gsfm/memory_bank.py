"""The memory of objects that were first given on the same frame (GSFM specification, section 2.4, = STCN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg.models.layers.memory_reading import read_best

_BLOCK = 8  # frames for which room is made at a time, at least


class MemoryBank:
    """Keys and values of frames: permanent ones, and at most one that the next one replaces.

    Room is made for several frames at a time, so that nothing is copied for most of them. A frame takes
    ``4 * P * (C + 1 + D)`` bytes in float32, for P positions, keys of C and values of D numbers.

    Args:
        max_frames: permanent frames that are kept at most; then the oldest but the first leaves. None: all are kept.
    """

    def __init__(self, max_frames: int | None = None) -> None:
        self.max_frames = max_frames
        self.permanent = 0  # frames
        self.has_temporary = False  # its place is behind the permanent ones
        self._oldest = 1  # of those that may leave
        self._keys = self._norms = self._values = torch.empty(0)  # (room, P, C), (room, P), (room, P, D)

    def __len__(self) -> int:
        """Frames in memory."""
        return self.permanent + self.has_temporary

    @property
    def width(self) -> int:
        """D, numbers of a position's values."""
        return self._values.shape[-1]

    def add(self, keys: Tensor, values: Tensor, temporary: bool = False) -> None:
        """Remember a frame; a temporary one that is there is forgotten.

        Args:
            keys: (P, C).
            values: (P, D).
            temporary: until the next call only. The first frame always stays.
        """
        self.has_temporary = temporary and self.permanent > 0
        place = self.permanent
        if not self.has_temporary:
            if self.max_frames is None or self.permanent < self.max_frames:
                self.permanent += 1
            elif self.max_frames == 1:
                return
            else:
                place = self._oldest
                self._oldest = place % (self.max_frames - 1) + 1
        if place >= len(self._keys):
            self._grow(keys, values)
        self._keys[place], self._values[place] = keys, values
        self._norms[place] = keys.square().sum(1)

    def read(self, queries: Tensor, top_k: int) -> Tensor:
        """Values (P', D) for queries (P', C), see :func:`read_best`."""
        keys, norms, values = (part[: len(self)].flatten(0, 1) for part in (self._keys, self._norms, self._values))
        return read_best(keys, values, queries, top_k, norms)

    def keep(self, columns: Sequence[slice]) -> None:
        """Forget the values of all but these slices of their D numbers."""
        self._values = torch.cat([self._values[..., part] for part in columns], dim=-1)

    def _grow(self, keys: Tensor, values: Tensor) -> None:
        room = len(self._keys) + max(_BLOCK, len(self._keys) // 2)
        if self.max_frames is not None:
            room = min(room, self.max_frames + 1)
        for name, like in (("_keys", keys), ("_norms", keys[:, 0]), ("_values", values)):
            old = getattr(self, name)
            new = like.new_empty(room, *like.shape)
            if len(old):
                new[: len(old)] = old
            setattr(self, name, new)
