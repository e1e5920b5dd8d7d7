"""Writing in the background: a file is encoded while the model computes the next result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Behind(Generic[Item]):
    """Does ``work(item)`` for one item after the other in a thread; whoever gives items waits when too many are due.

    Args:
        work: raises what :meth:`put` or :meth:`close` raise later.
        depth: items that may wait.
    """

    def __init__(self, work: Callable[[Item], None], depth: int = 4) -> None:
        self.work, self.depth = work, depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._due: deque[Future[None]] = deque()

    def put(self, item: Item) -> None:
        """Leave an item to the thread. Raises what an earlier one has met."""
        while len(self._due) >= self.depth or (self._due and self._due[0].done()):
            self._take_oldest()
        self._due.append(self._pool.submit(self.work, item))

    def close(self) -> None:
        """Wait for all items. Raises what one of them has met."""
        try:
            while self._due:
                self._take_oldest()
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop the items that wait; the one in work is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take_oldest(self) -> None:
        """It leaves the queue when its result is there: a signal may come while it is waited for."""
        self._due[0].result()
        self._due.popleft()
