"""The folder with all results of one video: they grow hidden, and appear together with a record of what made them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mmseg.errors import DataError
from mmseg.files import check_folder, make_folder, read_json, write_json, writing
from mmseg.folder_lock import FolderLock
from mmseg.writing.base import inside

RECORD = "run.json"
_ADVICE = "--out says where the results go"


class ResultFolder:
    """``<out>/<name>``, which is whole or not there. A context manager: what has not been published is discarded.

    Results grow in ``<out>/.<name>.unfinished``, which one process at a time has; what a killed one left is removed by
    the next one. Files of other origin in ``<out>/<name>`` stay as they are. Folders that were made for nothing go.

    Args:
        out: folder of the results of all videos.
        name: of the video; with parts joined by "/" there are folders in between.
        record: file name of the record.
        work: what is done, for the message to others; None: a segmentation of the video.
        advice: what the user can do if the place cannot be written.

    Attributes:
        final: ``<out>/<name>``.
        path: where to write until then.

    Raises:
        WriteError: the place cannot be written, or another process works on this video.
        DataError: the name leads out of `out`.
    """

    def __init__(
        self, out: str | Path, name: str, record: str = RECORD, work: str | None = None, advice: str = _ADVICE
    ) -> None:
        self.final, self.record, self.advice = inside(out, name), record, advice
        self.path = self.final.with_name(f".{self.final.name}.unfinished")
        check_folder(self.final, advice)
        self._new = [folder for folder in self.final.parents if not folder.exists()]  # the innermost one first
        self._lock = FolderLock(self.path, work or f"a segmentation of {name!r}")
        self._empty()

    def publish(self, record: Mapping[str, Any]) -> list[str]:
        """Let the results take the place of those of an earlier run; returns their names.

        Args:
            record: what made them, as JSON; it is the last to appear.
        """
        entries = sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
        before = _entries(finished_record(self.final, self.record))
        make_folder(self.final, self.advice)
        # written before anything goes: the disk may be full
        write_json(self.path / self.record, {**record, "files": entries}, self.advice)
        with writing(self.final, self.advice):
            (self.final / self.record).unlink(missing_ok=True)  # from here on until the end the results are incomplete
            for number, name in enumerate(dict.fromkeys([*entries, *before])):
                if (self.final / name).exists():
                    os.rename(self.final / name, self.path / f".replaced.{number}")
                if name in entries:
                    os.rename(self.path / name, self.final / name)
            os.rename(self.path / self.record, self.final / self.record)
        self.discard()
        return entries

    def discard(self) -> None:
        """Remove what has not been published, and let others in. Raises nothing."""
        if self._lock is not None:
            self._empty()
            self._lock.release()
            self._lock = None
            with contextlib.suppress(OSError):  # what is not empty stays
                for folder in (self.path, *self._new):
                    folder.rmdir()

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != ".lock":
                with contextlib.suppress(OSError):
                    path.unlink()

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()


def finished_record(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """What has made the results in the folder of a video; None if there are none, or they are not complete."""
    try:
        record = read_json(folder / name)
    except DataError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("files"), list) else None


def _entries(record: Mapping[str, Any] | None) -> list[str]:
    """The names in a record; whatever it says, nothing outside of the folder is meant."""
    names = [name for name in record["files"] if isinstance(name, str)] if record is not None else []
    return [name for name in names if name and name == Path(name).name and name[0] != "." and "\0" not in name]
