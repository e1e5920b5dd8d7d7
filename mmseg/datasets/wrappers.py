"""Training data sets made of others: one that counts several times, and several as one."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mmseg.datasets.base import VideoDataset
from mmseg.errors import ConfigError
from mmseg.registry import DATASETS
from mmseg.values import PositiveInt


class Wrapper:
    """A training data set whose items are those of other data sets.

    Args:
        datasets: of the same classes, with clips of the same length.

    Attributes:
        parts: the data sets of videos inside, at any depth.
        CLASSES, PALETTE, num_classes, ignore_index, dilation: as of the first of them.
    """

    def __init__(self, datasets: Sequence[VideoDataset | Wrapper]) -> None:
        first = datasets[0]
        self.parts: list[VideoDataset] = [part for d in datasets for part in getattr(d, "parts", [d])]
        self.CLASSES, self.PALETTE, self.num_classes = first.CLASSES, first.PALETTE, first.num_classes
        self.ignore_index, self.dilation = first.ignore_index, first.dilation

    def locate(self, index: int) -> tuple[VideoDataset | Wrapper, int]:
        """The data set in which item `index`, from 0 to ``len(self) - 1``, is found, and its index there."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, key: int | tuple[int, Sequence[int]]) -> dict[str, Any]:
        """See :meth:`VideoDataset.__getitem__`."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        return self.clip(index, np.random.default_rng(seed))

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """See :meth:`VideoDataset.clip`."""
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        dataset, inner = self.locate(index % len(self))
        return dataset.clip(inner, rng, progress)

    def label_counts(self, masks: int = 200) -> np.ndarray:
        """See :meth:`VideoDataset.label_counts`; the data sets share the sample, and each must have labels."""
        return sum(part.label_counts(-(-masks // len(self.parts))) for part in self.parts)


@DATASETS.register_module()
class RepeatDataset(Wrapper):
    """Repeats the list of items, so that an epoch visits each several times (with a fresh clip each time).

    Args:
        dataset: a training data set; in a config also a list of them.
        times: how often.
    """

    def __init__(self, dataset: VideoDataset | Wrapper, times: PositiveInt) -> None:
        super().__init__([dataset])
        self.dataset, self.times = dataset, times

    def __len__(self) -> int:
        return len(self.dataset) * self.times

    def locate(self, index: int) -> tuple[VideoDataset | Wrapper, int]:
        return self.dataset, index % len(self.dataset)


@DATASETS.register_module()
class ConcatDataset(Wrapper):
    """Several data sets one after the other; in a config also written as a list of them.

    Args:
        datasets: training data sets.

    Raises:
        ConfigError: they differ in their classes or in the length of their clips.
    """

    def __init__(self, datasets: Sequence[VideoDataset | Wrapper]) -> None:
        if not datasets:
            raise ConfigError("no data sets to join", "a list of one or more", "add a data set")
        super().__init__(datasets)
        self.datasets, self._ends = list(datasets), list(accumulate(map(len, datasets)))
        for number, other in enumerate(datasets):
            if other.CLASSES != self.CLASSES or other.ignore_index != self.ignore_index:
                raise ConfigError(
                    f"data sets 0 and {number} have other classes: {_difference(self.CLASSES, other.CLASSES)}",
                    "the same names in the same order in all data sets that are joined",
                    "give them the same `classes`, or classes.json in their data_root",
                )
            if len(other.dilation) != len(self.dilation):
                raise ConfigError(
                    f"data sets 0 and {number} have dilation {list(self.dilation)} and {list(other.dilation)}",
                    "clips of the same length in all data sets that are joined",
                    "set dilation in all of them",
                )

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[VideoDataset | Wrapper, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.datasets[number], index - (self._ends[number - 1] if number else 0)


def _difference(one: Sequence[str] | None, other: Sequence[str] | None) -> str:
    """Where two lists of class names differ first."""
    if one is None or other is None:
        return "one of them has no classes"
    for label, (name, other_name) in enumerate(zip(one, other)):
        if name != other_name:
            return f"class {label} is {name!r} in one and {other_name!r} in the other"
    return f"{len(one)} in one, {len(other)} in the other"
