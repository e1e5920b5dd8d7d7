"""Locks by which a living process shows that a file is its own; the system lifts them when it dies, however it dies.

The lock is on a descriptor of its own, which a forked child closes: so the child does not keep it alive when its parent
is killed. (Were it the descriptor that data are written to, the child could write them a second time.)
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MOUNTS = "/proc/self/mountinfo"
_held: set[int] = set()


def hold(path: str | Path, create: bool = False) -> tuple[int, bool]:
    """Lock a file for this process, without waiting.

    Args:
        path: a regular file.
        create: make it if it is missing.

    Returns:
        A descriptor of the file, for :func:`release`; and whether it is locked (not every file system can do that).

    Raises:
        BlockingIOError: another process, or this one, holds it.
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o666)
    _held.add(descriptor)
    try:
        if fcntl is None:
            return descriptor, False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor, True
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            release(descriptor)
            raise BlockingIOError(error.errno, error.strerror) from error
        return descriptor, False


def release(descriptor: int | None) -> None:
    """Lift the lock of a descriptor from :func:`hold`, and close it."""
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """One process after the other in blocks like this about the same folder: for files that are to appear together.

    Two runs with the same names never mix then. Keep it to some renames; it must not be nested. Where the file system
    has no locks, nothing is waited for.
    """
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        _held.add(descriptor)
    try:
        if descriptor is not None and fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        release(descriptor)


def seen_by_other_machines(path: str | Path, mounts: str | Path = MOUNTS) -> bool:
    """Whether a lock on `path` holds on all machines that share the file system, as far as the table `mounts` tells."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    path, best, local = Path(os.path.realpath(path)), -1, False
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = Path(fields.split(" ")[4].encode().decode("unicode_escape"))  # \040 is a space
        if (point == path or point in path.parents) and len(point.parts) > best:
            options = rest.replace(" ", ",").split(",")
            best = len(point.parts)
            local = bool({"nolock", "local_lock=all", "local_lock=flock", "localflock"} & set(options))
    return not local


def _let_go_in_child() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
