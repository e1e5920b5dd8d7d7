"""Training data sets made of others: one that counts several times, and several as one."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.class_names import first_difference
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
            check_same_classes(self, other, "data set 0", f"data set {number}")
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


def check_same_classes(one: Any, other: Any, place: str, other_place: str) -> None:
    """Raise ConfigError unless two data sets have the same classes, and read masks of one folder in the same way.

    Args:
        one, other: data sets or wrappers.
        place, other_place: what they are called, as ``data.train`` and ``data.val``.
    """
    if one.CLASSES != other.CLASSES or one.ignore_index != other.ignore_index:
        raise ConfigError(
            f"{place} and {other_place} have other classes: "
            + (first_difference(one.CLASSES, other.CLASSES) or "they differ in ignore_index"),
            "the same names in the same order",
            "give them the same `classes`, or the same classes.json in their data_root",
        )
    for part in getattr(one, "parts", [one]):
        for second in getattr(other, "parts", [other]):
            shared = set(getattr(part, "data_roots", ())) & set(getattr(second, "data_roots", ()))
            ours, theirs = part.label_reader.meaning(), second.label_reader.meaning()
            for name in ours if shared else ():
                if ours[name] != theirs[name]:
                    raise ConfigError(
                        f"{name}={ours[name]} in {place}, {theirs[name]} in {other_place}, both of {min(shared)}",
                        "one value, or the same mask would mean different classes",
                        f"set {name} in data.train, data.val and data.test",
                    )
