"""Memory of batches: samples are written where the batch has them, so that joining them copies nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmseg.datasets.lending import Lender

_local = threading.local()
_lender: Lender | None = None  # where batches are for another process


def share_batches() -> Lender:
    """From now on batches of this process are made in memory that can be lent to another one as it is."""
    global _lender
    _lender = Lender()
    return _lender


class Batch:
    """The tensors of a batch of `size` samples: what the first sample asks for, all the others ask for in this order.

    A sample that asks for something else gets memory of its own, and is copied when the samples are joined.
    """

    def __init__(self, size: int) -> None:
        self.size, self._sample, self._next = size, -1, 0
        self._tensors: list[Tensor] = []

    def next_sample(self) -> None:
        """What is asked for from here on belongs to the next sample."""
        self._sample, self._next = self._sample + 1, 0

    def slot(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The part of this sample of a tensor of the batch, not yet filled."""
        number, self._next = self._next, self._next + 1
        if number == len(self._tensors) and self._sample == 0:
            self._tensors.append(_empty((self.size, *shape), dtype))
        if number < len(self._tensors) and self._sample < self.size:
            part = self._tensors[number][self._sample]
            if part.shape == tuple(shape) and part.dtype == dtype:
                return part
        return torch.empty(tuple(shape), dtype=dtype)

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """The values of all samples with a batch axis: (B, ...)."""
        for whole in self._tensors:
            if all(_is(value, part) for value, part in zip(values, whole)):
                return whole
        return torch.stack(list(values))


def _is(value: Tensor, part: Tensor) -> bool:
    same = value.data_ptr() == part.data_ptr() and value.dtype == part.dtype
    return same and value.shape == part.shape and value.stride() == part.stride()


@contextlib.contextmanager
def batch_of(size: int) -> Iterator[Batch]:
    """Inside, :func:`new_tensor` gives parts of a batch of `size` samples."""
    outer, _local.batch = getattr(_local, "batch", None), Batch(size)
    try:
        yield _local.batch
    finally:
        _local.batch = outer


def new_tensor(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a tensor of a sample, not yet filled: in the batch that is being made, if there is one."""
    batch = getattr(_local, "batch", None)
    return torch.empty(tuple(shape), dtype=dtype) if batch is None else batch.slot(shape, dtype)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if _lender is not None and 0 not in shape:
        with contextlib.suppress(RuntimeError):  # there is no room; handing the batch over will tell
            return _lender.new_tensor(shape, dtype)
    return torch.empty(shape, dtype=dtype)
