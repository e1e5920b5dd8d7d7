"""One piece of work per video or file, done here or shared by processes, results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from mmseg.errors import DataError
from mmseg.parent import end_with_parent

_work: Callable[[Any], Any]
"""What a worker process was started with, so that it is not sent again with each item."""


def run_in_processes(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """``work(item)`` for every item, in order.

    Args:
        work: can be pickled where processes are started anew.
        items: small.
        workers: processes; 0 or 1 works in this one.

    Raises:
        SegError: what `work` raises.
        DataError: a process was killed.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with deaths_told(), ProcessPoolExecutor(workers, context, _start, (work, os.getpid())) as pool:
        try:
            yield from pool.map(_run, items)
        except BaseException:  # leaving the pool waits for what it has to do
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def deaths_told(
    advice: str = "use fewer of them (--workers, where the tool has it), or free some memory",
) -> Iterator[None]:
    """Raise DataError where a process of a pool was killed."""
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError("a worker process has ended, killed for memory perhaps", "workers that live", advice) from error


def _start(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    signal.set_wakeup_fd(-1)  # the main process's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process answers it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the pool's word to the others when one has died
    end_with_parent(parent)


def _run(item: Any) -> Any:
    return _work(item)
