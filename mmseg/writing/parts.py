"""A hidden folder for what the processes of a run write until it can appear as a whole."""

from __future__ import annotations

import contextlib
import glob
import shutil
from pathlib import Path

from mmseg import distributed
from mmseg.files import UNFINISHED, NewFile, make_folder, sweep


class PartFolder:
    """``.<name>.parts.<8 hex digits>`` beside the file or folder ``<name>``; no other run has it.

    All processes of a run have the same one, chosen by the main process; where they share no disk, each has its own of
    this name. A locked file beside it shows that the run is alive: what a killed run has left is removed when the next
    one with the same name starts.

    Args:
        beside: file or folder that the parts are for.
        private: each process has a folder with a name of its own.
        advice: what the user can do if it cannot be written.

    Attributes:
        path: the folder, after :meth:`make`.
    """

    def __init__(self, beside: str | Path, private: bool = False, advice: str = "") -> None:
        beside = Path(beside)
        self.private, self.advice = private, advice
        self.name = beside.with_name(f"{beside.name}.parts")
        self.path: Path | None = None
        self._owner: NewFile | None = None

    def make(self) -> None:
        """Make the folder; called by all processes. Raises WriteError, in all of them."""
        name = None
        with distributed.together():
            if self.private or distributed.is_main():
                self.sweep()
                self._owner = NewFile(self.name, self.advice, sync=False)
                name = self._owner.temporary.name.removesuffix(UNFINISHED)
        name = name if self.private else distributed.broadcast_object(name)
        self.path = self.name.with_name(name)
        with distributed.together():
            make_folder(self.path, self.advice)

    def remove(self) -> None:
        """Remove the folder, unless it is that of another process, which is still there to do it. Raises nothing."""
        if self.path is None:
            return
        if self._owner is not None or not self.path.with_name(self.path.name + UNFINISHED).exists():
            shutil.rmtree(self.path, ignore_errors=True)
        if self._owner is not None:
            self._owner.discard()

    def sweep(self) -> None:
        """Remove what dead runs have left: first their locked files, then the folders that lack one."""
        folder, name = self.name.parent, glob.escape(self.name.name)
        sweep(folder, name)
        with contextlib.suppress(OSError):
            for parts in folder.glob(f".{name}.*"):
                if parts.is_dir() and not parts.with_name(parts.name + UNFINISHED).exists():
                    shutil.rmtree(parts, ignore_errors=True)
