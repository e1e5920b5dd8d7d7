"""Worker processes that make batches, each on a pipe of its own.

With a pipe each, and no lock or queue that they share, a worker may die at any moment without holding up the others or
the main process, and all of them can be killed at the end without waiting for what they are doing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch
import torch.multiprocessing  # lets pipes pass tensors through shared memory

from mmseg.datasets.batches import share_batches
from mmseg.datasets.lending import Borrower
from mmseg.errors import DeadWorkerError, SegError
from mmseg.parent import end_with_parent

_AHEAD = 2  # batches that each worker makes in advance
_SHARED = _AHEAD + 2  # batches that it has memory for: also that in use, and one whose return is not told yet
_SHARED_MEMORY = "/dev/shm"


class Workers(Iterator[Any]):
    """``make(key)`` for every key, in order, made by `count` processes that end with this one.

    Args:
        make: runs in the workers. A :class:`SegError` that it returns or raises is raised in the main process, any
            other exception as a RuntimeError with the worker's traceback.
        keys: may be endless.
        count: number of processes, at least 1.
    """

    def __init__(self, make: Callable[[Any], Any], keys: Iterator[Any], count: int) -> None:
        self._keys = keys
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._borrowers = [Borrower() for _ in range(count)]
        self._pending: deque[int] = deque()  # whose the batches are that are on their way, in order
        # Runs before multiprocessing's own exit function, which would wait for workers that do not listen to SIGTERM.
        self._at_exit = functools.partial(_kill, self._processes)
        atexit.register(self._at_exit)
        # Forked workers share the lists of files and start at once. They never touch the GPU.
        context = torch.multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        for number in range(count):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, make, count, os.getpid()), name=f"data worker {number}", daemon=True
            )
            try:
                process.start()
            except OSError as error:
                self.close()
                raise _worker_error(f"data worker {number} cannot be started: {error.strerror}", count) from error
            there.close()  # else this process would not notice that the worker has gone
            self._pipes.append(here)
            self._processes.append(process)
        for position in range(_AHEAD * count):
            self._order(position % count)

    def __next__(self) -> Any:
        """The next result.

        Raises:
            DeadWorkerError: a worker has died.
        """
        if not self._pending:
            raise StopIteration
        number = self._pending.popleft()
        result = self._receive(number)
        if isinstance(result, Exception):
            self.close()
            raise result
        self._order(number)
        return result

    def close(self) -> None:
        """Kill the workers, which hold nothing that anybody needs; no more results come."""
        self._pending.clear()
        _kill(self._processes)
        for pipe in self._pipes:
            pipe.close()

    def __del__(self) -> None:
        self.close()
        atexit.unregister(_kill)
        self._at_exit = functools.partial(_kill, self._processes)
        atexit.register(self._at_exit)

    def _order(self, number: int) -> None:
        """Let a worker make the batch of the next key, if there is one."""
        for key in self._keys:
            with contextlib.suppress(OSError):  # it has died, which receiving will find out
                self._pipes[number].send((key, self._borrowers[number].returned()))
            self._pending.append(number)
            return

    def _receive(self, number: int) -> Any:
        """The oldest result of a worker, or the error that says which worker has died."""
        pipe, dead = self._pipes[number], self._processes[number]
        ready = wait([pipe, *(process.sentinel for process in self._processes)])
        if pipe in ready:
            try:
                result, given_up = pipe.recv()
                self._borrowers[number].given_up(given_up)
                return self._borrowers[number].unpack(result)
            except (EOFError, OSError):  # it died while it was sending, or before its tensors had been fetched
                pass
        else:
            dead = next(process for process in self._processes if process.sentinel in ready)
        dead.join(1)
        how = "ended" if dead.exitcode is None else f"ended with status {dead.exitcode}"
        if dead.exitcode is not None and dead.exitcode < 0:
            how = f"was killed by {signal.Signals(-dead.exitcode).name}"
        return _worker_error(f"{dead.name} (process {dead.pid}) {how}", len(self._processes))


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _worker_error(found: str, count: int) -> DeadWorkerError:
    """What people's workers usually die of, and the remedy."""
    try:
        usage = shutil.disk_usage(_SHARED_MEMORY)
        place = f"{_SHARED_MEMORY} has {usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB free"
    except OSError:
        place = f"there is no {_SHARED_MEMORY}"
    return DeadWorkerError(
        f"{found}; {place}",
        f"enough memory, and enough shared memory ({_SHARED_MEMORY}) for {_SHARED} batches per worker: the system "
        "kills workers when either runs out",
        f"lower data.workers_per_gpu (now {count}) or data.samples_per_gpu; give a container more shared memory "
        "(docker run --shm-size=8g)",
    )


# --- in the workers ---------------------------------------------------------------------------------------------------


def _serve(pipe: Connection, make: Callable[[Any], Any], count: int, parent: int) -> None:
    """The life of a worker: take a key, send the result."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group. The main process finishes its iteration then, for
    # which it needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)  # the main process's, if any
    end_with_parent(parent)
    cv2.setNumThreads(0)  # the workers are the threads
    torch.set_num_threads(1)
    lender = share_batches()
    with contextlib.suppress(EOFError, OSError):  # the main process has closed the pipe
        while True:
            key, returned = pipe.recv()
            lender.returned(returned)
            try:
                pipe.send((lender.pack(_result(make, key)), lender.given_up()))
            except OSError:
                raise
            except Exception as error:  # torch's way to say that shared memory is full
                pipe.send((_worker_error(f"a data worker cannot hand over its batch: {error}", count), []))


def _result(make: Callable[[Any], Any], key: Any) -> Any:
    try:
        return make(key)
    except SegError as error:
        return error
    except Exception:
        return RuntimeError(f"in a data worker:\n{traceback.format_exc()}")
