"""SIGTERM, SIGINT, SIGUSR1 as requests to finish the iteration, save and leave; a second one ends the process at once.

SIGUSR1 is the warning of a scheduler (``sbatch --signal``), which SIGTERM follows: that is no second request.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

_WARNING = getattr(signal, "SIGUSR1", None)  # not on Windows
_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([_WARNING] if _WARNING else []))
_SAME = 1.0  # seconds in which signals are one request: torchrun passes on a Ctrl-C that its processes had already
_ALONE = 10.0  # seconds after a request that are left when another process of this machine has ended
_STUCK = 10.0  # seconds after a request that are left for what needs no finishing
_BACK = 0.05  # seconds in which Python has returned from the call that dropped an exception
_LOST = 255  # stands for a signal whose exception has been lost, where numbers of signals are passed on


class Interrupted(SystemExit):
    """Ends the program with status 128 + signal number, as a shell reports a process ended by that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class Interrupts:
    """While entered, SIGTERM, SIGINT and SIGUSR1 set :attr:`received` instead of ending the process. May be nested.

    Python runs a signal handler between two of its own instructions only, hence never while it waits in a library for
    processes that do not answer. A thread therefore sees the signals, too, and ends the process without further ado

    - at a second signal, unless it comes so soon that it is the first one, passed on;
    - after a signal, when another process of this machine has ended, as what is waited for may never come;
    - after a signal in :meth:`at_once` that is not obeyed.

    Python drops an exception that is raised while it calls back from a weak reference or a destructor, and says so;
    the signal is then given once more.

    Has no effect outside of the main thread, where signals cannot be handled.
    """

    # of nested ones together: time and number of the first signal, and whether its handler has run
    _first: tuple[float, int] | None = None
    _answered = False

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._outer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._previous = {s: signal.signal(s, self._handle) for s in _SIGNALS}
            self._outer_hook, sys.unraisablehook = sys.unraisablehook, self._dropped
            threading.Thread(target=self._watch, args=(reader,), name="watch-signals", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._previous:
            return
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        sys.unraisablehook = self._outer_hook
        signal.set_wakeup_fd(self._outer, warn_on_full_buffer=False)
        os.close(self._writer)  # ends the thread
        if self._outer == -1:
            Interrupts._first, Interrupts._answered = None, False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child
            return
        Interrupts._answered = True
        first = self.received is None
        self.received = self.received or signum
        if self._at_once and first:
            raise Interrupted(signum)

    def _dropped(self, found: Any) -> None:
        """In the place of ``sys.unraisablehook``. Another signal from here would be lost in the same way."""
        if isinstance(found.exc_value, Interrupted) and os.getpid() == self._pid:
            self.received = None
            os.write(self._writer, bytes([_LOST]))
        else:
            self._outer_hook(found)

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

    def _watch(self, reader: int) -> None:
        """Read the numbers of all signals from a pipe until it is closed; end the process if they say so."""
        with open(reader, "rb", buffering=0) as pipe:
            while True:
                if select.select([pipe], [], [], _SAME if Interrupts._first else None)[0]:
                    received = pipe.read(64)
                    if not received:
                        return
                    for signum in set(received) & set(_SIGNALS):
                        self._count(signum)
                    if _LOST in received and Interrupts._first:
                        time.sleep(_BACK)
                        Interrupts._first = time.monotonic(), Interrupts._first[1]  # what follows is no second request
                        os.kill(self._pid, Interrupts._first[1])
                elif Interrupts._first:
                    self._look(*Interrupts._first)

    def _count(self, signum: int) -> None:
        if Interrupts._first is None or (Interrupts._first[1] == _WARNING and signum != _WARNING):
            Interrupts._first = time.monotonic(), signum
        elif signum == _WARNING:  # a scheduler may give it to a job and to each of its processes
            return
        elif time.monotonic() - Interrupts._first[0] > _SAME:
            _end(signum, "a second time")

    def _look(self, when: float, signum: int) -> None:
        """End the process if a request of some time ago will not be met."""
        age = time.monotonic() - when
        if age > _ALONE and _has_lost_neighbour():
            _end(signum, "and another process has ended")
        if age > _STUCK and self._at_once and not Interrupts._answered:
            _end(signum, "and no answer")


def _end(signum: int, why: str) -> None:
    os.write(2, f"{signal.Signals(signum).name} {why}: leaving at once\n".encode())
    os._exit(128 + signum)


def _has_lost_neighbour() -> bool:
    """Whether another process of this machine has ended; none is known before PyTorch has been imported."""
    look = getattr(sys.modules.get("mmseg.distributed"), "has_lost_neighbour", None)  # perhaps half imported
    return look is not None and look()
