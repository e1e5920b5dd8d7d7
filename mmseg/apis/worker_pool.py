"""One piece of work per video, done here or shared by processes, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mmseg.errors import DataError

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
    try:
        with ProcessPoolExecutor(workers, initializer=_start, initargs=(work,)) as pool:
            yield from pool.map(_run, items)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process has ended, killed for memory perhaps",
            "workers that live",
            "give fewer --workers, or none",
        ) from error


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _run(item: Any) -> Any:
    return _work(item)
