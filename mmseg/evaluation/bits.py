"""Sets of pixels as packed bits, and the intersection of the last L of them in a constant number of steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

import numpy as np


def pack(mask: np.ndarray) -> np.ndarray:
    """A bool array of any shape as uint64 words; bits beyond its size are 0."""
    packed = np.packbits(mask)
    words = np.zeros(-(-packed.size // 8), dtype=np.uint64)
    words.view(np.uint8)[: packed.size] = packed
    return words


def count(words: np.ndarray) -> int:
    """Number of bits set in uint64 `words`."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return int(np.bitwise_count(words).sum(dtype=np.int64))
    return int(_ones_of_16_bits()[words.view(np.uint16)].sum(dtype=np.int64))


@cache
def _ones_of_16_bits() -> np.ndarray:
    values = np.arange(65536, dtype=np.uint16)
    return np.unpackbits(values.view(np.uint8)).reshape(65536, 16).sum(axis=1, dtype=np.uint8)


class SlidingIntersection:
    """Intersections of the newest L sets of a sequence, for several L, by doubling.

    The intersection of the newest 1, 2, 4, ... sets is kept for a few steps back; the newest L are then two
    overlapping powers of two. The work per set does not depend on how long the sequence is, nor the memory.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = tuple(lengths)
        powers = [1]
        while 2 * powers[-1] <= max(self.lengths):
            powers.append(2 * powers[-1])
        self._levels = {p: deque(maxlen=p + 1) for p in powers}  # newest last; entry i back ends i sets earlier

    def push(self, words: np.ndarray) -> dict[int, np.ndarray]:
        """Add a set; returns, for each L with at least L sets so far, the intersection of the newest L."""
        newest = words
        for power, level in self._levels.items():
            level.append(newest)
            if len(level) <= power:  # the next level needs the entry `power` sets back
                break
            newest = level[-1] & level[-1 - power]
        result = {}
        for length in self.lengths:
            power = 1 << (length.bit_length() - 1)
            level = self._levels[power]
            if len(level) > length - power:
                result[length] = level[-1] & level[-1 - (length - power)]
        return result
