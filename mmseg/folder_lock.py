"""One owner of a folder: two runs that write into one folder would spoil each other's files."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mmseg import locks
from mmseg.errors import WriteError
from mmseg.files import make_folder, sweep, writing
from mmseg.parent import is_alive


class FolderLock:
    """Makes sure that one process at a time works in a folder. A context manager; held from its construction on.

    The file ``.lock`` in the folder tells who it is. A process that has died holds nothing, whatever the file says.

    Args:
        folder: is made if it is missing.
        work: what is done there, for the message to others ("a training").
        mounts: table of the mounted file systems, which says whether other machines see a lock.

    Attributes:
        previous: who held it before and died: host, pid, since, work; None after an orderly end.
        alone: no other process can hold it, on whatever machine; False where the file system's locks do not tell that.

    Raises:
        WriteError: a living process holds it, or one on another machine may do so; or the folder cannot be written.
    """

    def __init__(self, folder: str | Path, work: str, mounts: str | Path = locks.MOUNTS) -> None:
        self.folder, self.path, self.work = Path(folder), Path(folder) / ".lock", work
        with writing(folder):
            self._lock, locked = self._take()
            self.alone = locked and locks.seen_by_other_machines(self.folder, mounts)
            try:
                self.previous = _read_record(os.pread(self._lock, 4096, 0))
                self._check_previous(locked)
                record = dict(work=work, host=socket.gethostname(), pid=os.getpid(), since=time.strftime("%F %T"))
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, json.dumps(record).encode(), 0)
            except BaseException:
                locks.release(self._lock)
                raise

    def _take(self) -> tuple[int, bool]:
        """The lock file, locked if the file system can do that."""
        while True:
            make_folder(self.folder)
            with contextlib.suppress(FileNotFoundError):  # the owner has just left, and taken the file along
                try:
                    lock, locked = locks.hold(self.path, create=True)
                except BlockingIOError:
                    raise self._refusal(_read_record(self.path.read_bytes())) from None
                if self.path.exists() and os.path.samestat(os.fstat(lock), self.path.stat()):
                    return lock, locked
                locks.release(lock)

    def _check_previous(self, locked: bool) -> None:
        """Refuse if the process that the file tells of may be alive although the lock does not show it."""
        owner = self.previous
        if owner is not None:
            here = owner["host"] == socket.gethostname()
            told = self.alone or (locked and here)
            if not told and (not here or is_alive(owner["pid"])):
                raise self._refusal(owner, sure=False)

    def _refusal(self, owner: Mapping[str, Any] | None, sure: bool = True) -> WriteError:
        who = "another process"
        if owner is not None:
            who = f"{owner['work']} (process {owner['pid']} on {owner['host']}, since {owner['since']})"
        action = f"choose another folder for {self.work}, or stop that process first"
        if not sure:
            action += f"; if it no longer runs (this file system cannot tell), remove {self.path}"
        return WriteError(f"{self.folder}: in use by {who}", "a folder that nobody else writes to", action)

    def sweep(self) -> None:
        """Remove what dead owners left unfinished in the folder."""
        sweep(self.folder, alone=self.alone)

    def release(self) -> None:
        """Let others in. Without effect if that has been done."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # while it is held, so that nobody else's is removed
                self.path.unlink()
            locks.release(self._lock)
            self._lock = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _read_record(text: bytes) -> dict[str, Any] | None:
    """Who holds a folder, from its lock file; None if that is empty or damaged."""
    try:
        record = json.loads(text)
        return {**{key: str(record[key]) for key in ("work", "host", "since")}, "pid": int(record["pid"])}
    except (ValueError, KeyError, TypeError):
        return None
