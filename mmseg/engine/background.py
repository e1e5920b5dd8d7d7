"""Checkpoints are copied and written by a thread while the training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor


class BackgroundWriter:
    """Writes one state at a time: the copy and the write are a thread's work, and the next one waits for the last.

    What changes only after the backward pass (weights, moments, averages) need not be copied before the training goes
    on: who changes it waits in :meth:`settle` until the copy is there, for which it has had two passes. A thread
    serves as well as a process would: PyTorch lets go of Python's lock for what takes long (checksums, the copy), and
    so do the calls that write.

    Attributes:
        failure: why a state could not be written; nothing is written after it.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._copied = threading.Event()
        self._copied.set()

    def begin(self, state: Any, write: Callable[[Any], None]) -> None:
        """Copy a state and call `write` with the copy, in a thread, as soon as the state before has been written.

        Args:
            state: dicts, lists and tuples, which are copied now, of tensors, which are copied by the thread: they must
                not change before :meth:`settle` returns.
            write: anything that it raises is raised by the next call of :meth:`begin` or :meth:`wait`.

        Raises:
            Exception: what ended the write before; this state is not written.
        """
        self.wait()
        thread = threading.Thread(target=self._work, args=(containers(state), write), name="write-checkpoint")
        self._copied.clear()
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads: nobody would ever copy
            self._copied.set()
            raise
        self._thread = thread

    def _work(self, state: Any, write: Callable[[Any], None]) -> None:
        try:
            try:
                state = on_cpu(state, copies=True)
            finally:
                self._copied.set()
            write(state)
        except Exception as error:
            self.failure = error

    def settle(self) -> None:
        """Wait until the state in work is copied: its tensors may change then."""
        self._copied.wait()

    def join(self) -> None:
        """Wait until the state in work is written, or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until the state in work is on the disk.

        Raises:
            Exception: it, or one before it, could not be written.
        """
        self.join()
        if self.failure is not None:
            raise self.failure


def containers(state: Any) -> Any:
    """`state` with dicts, lists and tuples of its own, and the tensors and other values as they are."""
    if type(state) is dict:
        return {key: containers(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(containers, state))
    return state


def on_cpu(state: Any, copies: bool = False, made: dict[tuple, Tensor] | None = None) -> Any:
    """`state` with its tensors on the CPU; with `copies`, none of them shares memory with those of `state`.

    A tensor that stands in several places is copied once, and stands in those places again: so do its bytes in a file.
    """
    made = {} if made is None else made
    if isinstance(state, Tensor):
        key = (state.device, state.data_ptr(), state.dtype, state.shape, state.stride())
        if key not in made or not state.numel():
            made[key] = state.detach().clone() if copies and not state.is_cuda else state.detach().cpu()
        return made[key]
    if type(state) is dict:
        return {key: on_cpu(value, copies, made) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(on_cpu(value, copies, made) for value in state)
    return state
