"""Which sample comes when: a function of the seed and the position alone.

Nothing is remembered, so that a resumed run goes on exactly where it stopped, and the global order of samples does not
depend on how many workers and processes share them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Independent random streams are told apart by the second entry of their seed.
_SAMPLE, _ORDER = 0, 1

SampleKey = tuple[int, tuple[int, int, int]]


def position_of(seed: tuple[int, int, int]) -> int:
    """The position in the global order of the sample with this seed."""
    return seed[2]


class PositionSampler:
    """The endless global order of samples.

    Every pass over the items is a permutation of its own. Sample p is ``(index, seed)``; the seed determines
    everything random inside the sample.

    Args:
        num_items: length of the data set.
        seed: not negative.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items, self.seed = num_items, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __getitem__(self, position: int) -> SampleKey:
        """The sample at a position >= 0 of the global order."""
        epoch, offset = divmod(position, self.num_items)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.num_items)
            self._epoch = epoch
        return int(self._permutation[offset]), (self.seed, _SAMPLE, position)


class BatchSampler:
    """The endless batches of one process: batch k of rank r takes positions k*B*W + r*B .. k*B*W + (r+1)*B - 1.

    Args:
        sampler: the global order.
        batch_size: B.
        start: the first batch.
        rank: r.
        world_size: W.
    """

    def __init__(
        self, sampler: PositionSampler, batch_size: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.sampler, self.batch_size, self.start = sampler, batch_size, start
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batch = self.start
        while True:
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [self.sampler[position] for position in range(first, first + self.batch_size)]
            batch += 1
