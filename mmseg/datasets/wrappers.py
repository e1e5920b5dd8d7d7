"""A data set that counts several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmseg.datasets.base import VideoDataset
from mmseg.errors import ConfigError
from mmseg.registry import DATASETS


@DATASETS.register_module()
class RepeatDataset:
    """Repeats the list of items, so that an epoch visits each several times (with a fresh clip each time).

    Args:
        dataset: a training data set.
        times: how often.

    Raises:
        ConfigError: `times` is no positive integer.
    """

    def __init__(self, dataset: VideoDataset, times: int) -> None:
        if not isinstance(times, int) or times < 1:
            raise ConfigError(f"RepeatDataset: times={times!r}", "a positive integer", "fix times")
        self.dataset, self.times = dataset, times
        self.CLASSES, self.PALETTE, self.num_classes = dataset.CLASSES, dataset.PALETTE, dataset.num_classes
        self.ignore_index, self.dilation = dataset.ignore_index, dataset.dilation

    def __len__(self) -> int:
        return len(self.dataset) * self.times

    def __getitem__(self, key: tuple[int, Sequence[int]]) -> dict[str, Any]:
        index, seed = key
        return self.dataset[index % len(self.dataset), seed]

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """See :meth:`VideoDataset.clip`."""
        return self.dataset.clip(index % len(self.dataset), rng, progress)
