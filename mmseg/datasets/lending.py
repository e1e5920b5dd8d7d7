"""Memory for batches that goes from a worker to the main process, and is used again once nobody looks at it.

New shared memory costs a batch more than making it: the system fills its pages with zeros, one at a time. Here a
:class:`Lender` in the worker keeps the memory, and a :class:`Borrower` in the main process its own view of it. Whoever
uses such memory gets a tensor on a lease, which ends when the last view of that tensor is gone, in whatever list,
NumPy array or graph it was: batches that a user keeps stay as they are, and others are made in other memory.

A process that is forked has the batches of that moment, too, and nobody knows when it is done with them: their memory
is not used again.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

_IDLE = 64  # tensors, at least, that are made before memory is given up that none of them needed

_forks = 0  # of this process


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_count_fork)


class Loan(NamedTuple):
    """What stands in a message for a tensor in lent memory.

    Attributes:
        number: of the memory.
        shape, dtype: of the tensor, which begins where the memory does.
        memory: all of it, (bytes,) uint8, the first time that it is lent.
    """

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    memory: Tensor | None


def lease(memory: Tensor, shape: Sequence[int], dtype: torch.dtype, ended: Callable[[], Any]) -> Tensor:
    """A tensor in `memory` (bytes,) uint8; `ended` is called once nothing looks at it any more, in any thread."""
    array = memory.numpy()[: torch.Size(shape).numel() * dtype.itemsize]
    finalizer = weakref.finalize(array, ended)
    finalizer.atexit = False
    return torch.from_numpy(array).view(dtype).view(tuple(shape))  # of which every view keeps the array


@dataclass
class _Memory:
    data: Tensor  # (bytes,) uint8
    known: bool = False  # to the other process
    here: int = 0  # leases in this process
    there: int = 0  # loans that have not come back
    last: int = 0  # tensor that was made in it, by its number
    forked: bool = False  # a forked process may look at it

    @property
    def unused(self) -> bool:
        return not (self.here or self.there)


class Lender:
    """The side of the process that makes batches."""

    def __init__(self) -> None:
        self._memories: dict[int, _Memory] = {}  # those used longest ago first
        self._made = self._tensors = 0
        self._ended: deque[int] = deque()  # leases of this process
        self._places: dict[int, int] = {}  # address -> number
        self._given_up: list[int] = []

    def new_tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor, not yet filled, that :meth:`pack` can lend.

        Raises:
            RuntimeError: there is no room in shared memory.
        """
        while self._ended:
            self._memories[self._ended.popleft()].here -= 1
        self._tensors += 1
        size = torch.Size(shape).numel() * dtype.itemsize
        unused = self._unused()
        fitting = [number for number in unused if size <= self._memories[number].data.numel() <= 2 * size]
        if fitting:  # the one used last, so that what is more than enough is given up one day
            number = min(reversed(fitting), key=lambda n: self._memories[n].data.numel())
        else:
            if unused:
                self._give_up(unused[0])
            number = self._make(size)
        memory = self._memories[number] = self._memories.pop(number)
        memory.here, memory.last = memory.here + 1, self._tensors
        return lease(memory.data, shape, dtype, lambda: self._ended.append(number))

    def pack(self, result: Any) -> Any:
        """`result`, with loans in the place of a dict's tensors that :meth:`new_tensor` made."""
        return {key: self._lent(value) for key, value in result.items()} if isinstance(result, dict) else result

    def returned(self, loans: Iterable[tuple[int, bool]]) -> None:
        """The other process does not look at this memory any more; a process that it has forked may (True)."""
        for number, forked in loans:
            self._memories[number].there -= 1
            self._memories[number].forked |= forked

    def given_up(self) -> list[int]:
        """Memory that will not be lent again, since the last time of asking."""
        numbers, self._given_up = self._given_up, []
        return numbers

    def _unused(self) -> list[int]:
        """Memory that can be used again; what cannot, or has not been used for long, is given up."""
        numbers = []
        enough = max(_IDLE, 4 * len(self._memories))  # all of them take turns
        for number, memory in list(self._memories.items()):
            if memory.unused and (memory.forked or self._tensors - memory.last > enough):
                self._give_up(number)
            elif memory.unused:
                numbers.append(number)
        return numbers

    def _make(self, size: int) -> int:
        storage = torch.UntypedStorage._new_shared(size)
        data = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,))
        self._made += 1
        self._memories[self._made], self._places[data.data_ptr()] = _Memory(data), self._made
        return self._made

    def _give_up(self, number: int) -> None:
        memory = self._memories.pop(number)
        del self._places[memory.data.data_ptr()]
        if memory.known:
            self._given_up.append(number)

    def _lent(self, value: Any) -> Any:
        plain = type(value) is Tensor and value.layout is torch.strided and not (value.is_conj() or value.is_neg())
        number = self._places.get(value.data_ptr()) if plain else None
        if number is None or not value.is_contiguous() or value.requires_grad:
            return value
        memory = self._memories[number]
        loan = Loan(number, tuple(value.shape), value.dtype, None if memory.known else memory.data)
        memory.known = True
        memory.there += 1
        return loan


class Borrower:
    """The side of the process that uses batches; one for each worker."""

    def __init__(self) -> None:
        self._memories: dict[int, Tensor] = {}
        self._ended: deque[tuple[int, bool]] = deque()

    def unpack(self, result: Any) -> Any:
        """`result` with tensors in the place of loans."""
        return {key: self._tensor(value) for key, value in result.items()} if isinstance(result, dict) else result

    def given_up(self, numbers: Iterable[int]) -> None:
        """Forget memory that is not lent again."""
        for number in numbers:
            del self._memories[number]

    def returned(self) -> list[tuple[int, bool]]:
        """Memory whose leases have ended since the last time of asking, and whether this process forked meanwhile."""
        numbers = []
        with contextlib.suppress(IndexError):
            while True:
                numbers.append(self._ended.popleft())
        return numbers

    def _tensor(self, value: Any) -> Any:
        if not isinstance(value, Loan):
            return value
        if value.memory is not None:
            self._memories[value.number] = value.memory
        memory, number, ended, forks = self._memories[value.number], value.number, self._ended, _forks
        return lease(memory, value.shape, value.dtype, lambda: ended.append((number, _forks > forks)))
