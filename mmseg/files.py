"""Writing files: all of a file or nothing of it, one message when that fails, nothing left behind. And reading them.

A new file grows under a unique hidden name in the folder of its final name, is synced to the disk and then renamed, so
that what stands under the final name is complete at every moment. While it is written, its process holds a lock on it
(:mod:`mmseg.locks`): :func:`sweep` removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mmseg import locks
from mmseg.errors import DataError, WriteError

UNFINISHED = ".writing"  # end of the names of unfinished files: .<final name>.<8 hex digits>.writing
_STALE = 7 * 86400  # seconds without a change after which an unfinished file is nobody's, where locks do not work
_LINK_AGE = 60  # seconds after which an unfinished link is nobody's: it is renamed as soon as it is made
MAX_BYTES = 2**29  # of a file that is read whole
_LONGEST_STEM = 160  # of the final name in a temporary one; names may have 255 bytes
_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another place"),
    errno.EDQUOT: ("the quota is used up", "free some space or choose another place"),
    errno.EFBIG: ("the file is larger than allowed here", "raise the limit (ulimit -f) or choose another place"),
    errno.EROFS: ("the file system is read-only", "choose another place"),
    errno.EACCES: ("no permission", "choose another place, or change the permissions of the folder"),
    errno.EPERM: ("no permission", "choose another place, or change the permissions of the folder"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another place, or move that file"),
    errno.EEXIST: ("a part of the path is a file", "choose another place, or move that file"),
    errno.EISDIR: ("there is a folder of this name", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
    errno.ENOENT: ("the folder has disappeared", "make sure that nothing removes it meanwhile"),
}


def write_error(path: str | Path, error: BaseException, advice: str = "") -> WriteError:
    """The error that says why `path` cannot be written.

    Args:
        path: file or folder.
        error: what the system said.
        advice: what else the user can do, beside what follows from the reason.
    """
    reason, action = _REASONS.get(getattr(error, "errno", None), (None, "check the place, or choose another"))
    said = getattr(error, "strerror", None) or str(error)
    name = str(path) if str(path).isprintable() else repr(str(path))
    return WriteError(
        f"{name}: cannot be written, {f'{reason} ({said})' if reason else said}",
        "a writable folder with enough space",
        f"{action}; {advice}" if advice else action,
    )


@contextlib.contextmanager
def writing(path: str | Path, advice: str = "") -> Iterator[None]:
    """Around code that writes to `path`: an OSError becomes a :class:`WriteError` that names `path` and the reason."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "null" not in str(error):  # a NUL in the name
            raise
        raise write_error(path, error, advice) from error


def make_folder(folder: str | Path, advice: str = "") -> Path:
    """Make a folder and its parents, if they are missing. Raises WriteError."""
    with writing(folder, advice):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def check_folder(folder: str | Path, advice: str = "") -> None:
    """Raise WriteError if something that is no folder has the name of a folder that is to be made later."""
    with writing(folder, advice):
        if Path(folder).exists() and not Path(folder).is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


class NewFile:
    """A file that takes the place of `path` at :meth:`commit`, or disappears without a trace.

    A context manager: commits at the end of the block, discards after an error. What writes to a stream gets the object
    itself; what wants a name gets :attr:`temporary`, which exists and is empty (give `suffix`, if it goes by that).

    Args:
        path: the final name; its folder is made if it is missing.
        advice: what the user can do if it cannot be written, beside what follows from the reason.
        sync: wait until the disk has it before it appears. Without, a power cut (not a kill) may leave an empty file:
            for files that are many and cheap to make again.
        suffix: end of the temporary name.

    Raises:
        WriteError: here, in :meth:`write` and in :meth:`commit`. After an error in :meth:`write`, every further call
            and the end of the block raise the same one, whatever a library in between has made of it.
    """

    def __init__(self, path: str | Path, advice: str = "", sync: bool = True, suffix: str = "") -> None:
        self.path, self.advice, self.sync = Path(path), advice, sync
        self.error: WriteError | None = None
        make_folder(self.path.parent, advice)
        with writing(path, advice):
            _refuse_special(self.path)
            self.temporary, self._file, self._lock = _create(self.path, suffix)

    def write(self, data: Any) -> int:
        """Append bytes, or anything else with a buffer."""
        if self.error is None:
            try:
                return _write_all(self._file, data)
            except OSError as error:
                self.error = write_error(self.path, error, self.advice)
        raise self.error

    def commit(self) -> None:
        """Let the file appear under its name, complete."""
        try:
            if self.error is not None:
                raise self.error
            with writing(self.path, self.advice):
                if self.sync:
                    os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self.temporary, self.path)
                if self.sync:
                    sync_folder(self.path.parent)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has been written; what was at `path` before is intact. Without effect after :meth:`commit`."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)
        locks.release(self._lock)
        self._lock = None

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.commit()
            return
        self.discard()
        if self.error is not None and isinstance(error, Exception):
            raise self.error from None


def write_bytes(path: str | Path, data: bytes, advice: str = "", sync: bool = True) -> None:
    """Write a whole file, or nothing. Raises WriteError; see :class:`NewFile` for the arguments."""
    with NewFile(path, advice, sync) as file:
        file.write(data)


def write_text(path: str | Path, text: str, advice: str = "", sync: bool = True) -> None:
    """Write a whole UTF-8 file, or nothing. Raises WriteError; see :class:`NewFile` for the arguments."""
    write_bytes(path, text.encode("utf-8"), advice, sync)


def write_json(path: str | Path, content: Any, advice: str = "", indent: int | None = 2) -> None:
    """Write `content` as JSON, the whole file or nothing. Raises WriteError."""
    write_text(path, json.dumps(content, indent=indent) + "\n", advice)


def append_text(path: str | Path, text: str, advice: str = "") -> None:
    """Append to a log, all of `text` or nothing of it. Raises WriteError."""
    with writing(path, advice), open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, text.encode("utf-8"))
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise


def sweep(folder: str | Path, names: str = "*", alone: bool = False) -> None:
    """Remove the unfinished files that dead processes left in `folder`; those of living ones stay.

    Args:
        folder: is searched, without its sub-folders; may be missing.
        names: pattern of the final names, as for :func:`glob.glob`.
        alone: nobody else makes links in `folder`, so that unfinished ones are dead however young they are. A link
            cannot be locked: without this, those of the last minute stay.
    """
    for file in Path(folder).glob(f".{names}.*{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            status = file.lstat()
            if stat.S_ISREG(status.st_mode):
                _remove_if_dead(file)
            elif stat.S_ISLNK(status.st_mode) and (alone or time.time() - status.st_mtime > _LINK_AGE):
                file.unlink()


def sync_folder(folder: str | Path) -> None:
    """Make a rename last through a power cut; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_name(path: Path, suffix: str = "") -> Path:
    """A hidden name beside `path` that no other process has."""
    stem = path.name.encode("utf-8", "surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")
    return path.with_name(f".{stem}.{uuid.uuid4().hex[:8]}{UNFINISHED}{suffix}")


def _refuse_special(path: Path) -> None:
    """A device or pipe would be replaced by a file, a folder cannot be."""
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "it is a device or a pipe")


def _create(path: Path, suffix: str) -> tuple[Path, IO[bytes], int]:
    """A new file under a temporary name, open, and the lock that shows that its writer lives."""
    while True:
        temporary = temporary_name(path, suffix)
        # unbuffered, so that no data are left to fail when it is closed; mode 0666 less the umask, not tempfile's 0600
        file = open(temporary, "xb", buffering=0)  # noqa: SIM115
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another process just sweeps it away
            lock, _ = locks.hold(temporary)
            if temporary.exists():
                return temporary, file, lock
            locks.release(lock)
        file.close()


def _write_all(file: IO[bytes], data: Any) -> int:
    """Write all of `data`, of which the system may take a part at a time."""
    rest = memoryview(data).cast("B")
    size = rest.nbytes
    while rest.nbytes:
        rest = rest[file.write(rest) :]
    return size


def _remove_if_dead(path: Path) -> None:
    """Remove an unfinished file that nobody holds; where that cannot be found out, one that has not changed lately."""
    lock, locked = locks.hold(path)  # BlockingIOError: its writer lives
    try:
        if (locked and locks.seen_by_other_machines(path)) or time.time() - path.stat().st_mtime > _STALE:
            path.unlink()
    finally:
        locks.release(lock)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file that is not larger than `limit`.

    Raises:
        DataError: missing, unreadable, a folder, a pipe or a device (which might never end), or too large.
    """
    name = str(path) if str(path).isprintable() else repr(str(path))
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise DataError(f"{name} is {kind}", "a file", "check the path")
        if status.st_size > limit:
            size = f"{name}: {status.st_size / 2**20:.0f} MiB"
            raise DataError(size, f"at most {limit / 2**20:.0f} MiB", "check that it is the right file")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{name} cannot be read ({reason})", "a readable file", "check the path and its permissions"
        ) from error


def read_json(path: str | Path, limit: int = 2**24) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read (:func:`read_bytes`), is no JSON, or is nested beyond all reason.
    """
    try:
        return json.loads(read_bytes(path, limit))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{path} is no JSON file that can be read ({reason})", "a JSON file", "fix it") from error
