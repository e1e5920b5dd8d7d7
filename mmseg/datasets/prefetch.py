"""Reading ahead: what a video needs next is decoded in the background while the model computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(load: Callable[[int], Item], numbers: Iterable[int], depth: int = 4, threads: int = 2) -> Iterator[Item]:
    """``map(load, numbers)``, in order, with at most `depth` items loaded in advance.

    An error is raised when its item is due. Close the iterator (or use it up) to stop the threads.

    Args:
        load: may be called from several threads at once.
        numbers: what to load.
        depth: items loaded ahead, at least 1.
        threads: background threads; 0 loads an item when it is asked for.
    """
    if threads == 0:
        yield from map(load, numbers)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="frames")
    pending: deque[Future[Item]] = deque()
    try:
        for number in numbers:
            pending.append(pool.submit(load, number))
            if len(pending) > max(depth, 1):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def iterate_ahead(items: Generator[Item], depth: int = 4) -> Iterator[Item]:
    """The same `items`, made in a background thread, at most `depth` of them in advance.

    An error is raised when its item is due. Close the iterator (or use it up) to close `items`.
    """
    end = object()
    with closing(items), closing(read_ahead(lambda _: next(items, end), itertools.count(), depth, threads=1)) as ahead:
        for item in ahead:
            if item is end:
                return
            yield item
