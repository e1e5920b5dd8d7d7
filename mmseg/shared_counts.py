"""What the processes of a run count together without waiting for each other: who takes which video, how far all are.

Collectives of :mod:`mmseg.distributed` wait for all processes, which may be hours apart where each works on videos of
its own.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from mmseg import distributed
from mmseg.errors import OtherProcessError

_POLL = 0.2  # seconds
_ANSWER = timedelta(seconds=60)  # within which the main process answers


class SharedCounts:
    """Numbers by name, which every process can raise, and one word of each process. Made by all processes together."""

    def __init__(self) -> None:
        self._store: dist.TCPStore | None = None
        self._counts: Counter[str] = Counter()
        if distributed.world_size() == 1:
            return
        address = os.environ["MASTER_ADDR"]
        with distributed.together():
            if distributed.is_main():
                self._store = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=_ANSWER)
        port = distributed.broadcast_object(self._store.port if self._store is not None else None)
        with distributed.together():
            if self._store is None:
                self._store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=_ANSWER)

    def add(self, name: str, amount: int = 1) -> int:
        """Raise a number, which starts at 0; returns what it is then."""
        if self._store is None:
            self._counts[name] += amount
            return self._counts[name]
        with _asking():
            return self._store.add(name, amount)

    def exchange(self, word: Any, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
        """Say a last word (JSON) and wait, for hours if need be, for those of all processes; all have them then.

        Args:
            word: of this process.
            meanwhile: is called several times a second.
        """
        if self._store is None:
            return [word]
        with _asking():
            self._store.set(f"word {distributed.rank()}", json.dumps(word))
            self._store.add("words", 1)
            while self._store.add("words", 0) < distributed.world_size():
                meanwhile()
                time.sleep(_POLL)
            words = [json.loads(self._store.get(f"word {rank}")) for rank in range(distributed.world_size())]
        distributed.barrier()  # the main process, which has the numbers, leaves last
        return words


@contextmanager
def _asking() -> Iterator[None]:
    """An error of the connection means that the main process has gone."""
    try:
        yield
    except RuntimeError as error:
        raise OtherProcessError(
            f"process {distributed.rank()} has lost the connection to the main one ({str(error).splitlines()[0]})",
            "all processes to go on until the end",
            "see the message of the process that stopped first, or of the launcher",
        ) from error
