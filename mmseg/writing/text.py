"""Texts that belong to a whole test run: one file, which appears when the run is complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmseg import distributed
from mmseg.files import NewFile
from mmseg.structures import Video
from mmseg.writing.base import ResultWriter


class TextWriter(ResultWriter):
    """Base of writers of a text; a place where it cannot be is told at the start.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: NewFile | None = None  # in the main process

    def text(self) -> str:
        """The content, that of the main process; called in all of them."""
        raise NotImplementedError

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        with distributed.together():
            if distributed.is_main():
                self._file = NewFile(self.path)

    def finish(self) -> None:
        text = self.text()
        with distributed.together():
            if self._file is not None:
                self._file.write(text.encode("utf-8"))
                self._file.commit()

    def abort(self) -> None:
        if self._file is not None:
            self._file.discard()


class ReportWriter(TextWriter):
    """The scores as JSON, where there is no pickle beside which they would stand.

    Args:
        path: of the file.
        report: makes its content, in the main process, when all metrics are complete.
    """

    def __init__(self, path: str | Path, report: Callable[[], Any]) -> None:
        super().__init__(path)
        self.report = report

    def text(self) -> str:
        return json.dumps(self.report(), indent=2) + "\n" if distributed.is_main() else ""
