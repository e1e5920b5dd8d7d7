"""Which processes are alive; processes that stop when the one that started them has gone, however it went."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_INTERVAL = 1.0  # seconds between two looks
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends; where it cannot (not Linux), a thread looks once a second.

    Args:
        parent: process id of the parent, as the parent knows it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)
    else:
        when_parent_ends(parent, lambda: os._exit(1))


def when_parent_ends(parent: int, action: Callable[[], None]) -> None:
    """Call `action` in a thread, once, within about a second after the parent has ended.

    Other than the kernel's signal this also holds for a parent whose thread ends that started the process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_INTERVAL)
        action()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that has ended and whom its parent has not asked for does not.

    True where it cannot be found out.
    """
    if os.name != "posix":  # elsewhere signal 0 is not only a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no such number
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:  # no such file system, or gone just now
        return not Path("/proc/self/stat").exists()
