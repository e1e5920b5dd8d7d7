"""SIGTERM and SIGINT as requests to finish the iteration, save and leave."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger("mmseg.engine")


class Interrupted(SystemExit):
    """Ends the program with status 128 + signal number, as a shell reports a process ended by that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class Interrupts:
    """While entered, SIGTERM and SIGINT set :attr:`received` instead of ending the process.

    A second signal changes nothing: torchrun passes on a Ctrl-C that its processes have seen already. Processes forked
    meanwhile (data workers) ignore both, since a scheduler may signal them too; they end with their parent.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        first = self.received is None
        self.received = self.received or signum
        if self._at_once and first:
            raise Interrupted(signum)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block a signal raises :class:`Interrupted` immediately (nothing there needs finishing)."""
        self._at_once = True
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._at_once = False
