"""The PNGs of a test run as a zip that the servers of DAVIS and YouTube-VOS take."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from mmseg import distributed
from mmseg.files import NewFile, writing
from mmseg.structures import Result, Video
from mmseg.writing.base import ResultWriter
from mmseg.writing.label_png import LabelPngWriter


class ZippedPngWriter(ResultWriter):
    """Another writer's PNGs, and all of them in ``<folder>.zip`` beside it.

    Args:
        writer: of the PNGs, which go below `folder`.
        folder: the top of the zip.
    """

    def __init__(self, writer: LabelPngWriter, folder: Path) -> None:
        self.writer, self.folder = writer, Path(folder)

    @property
    def path(self) -> Path:
        """The zip."""
        return self.folder.with_name(self.folder.name + ".zip")

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        self._videos = [video.name for video in videos]
        with distributed.together():
            if distributed.is_main():
                NewFile(self.path).discard()  # a place where it cannot be is told now
        self.writer.start(videos, owners)

    def begin_video(self, video: Video) -> None:
        self.writer.begin_video(video)

    def add(self, result: Result) -> None:
        self.writer.add(result)

    def end_video(self) -> None:
        self.writer.end_video()

    def finish(self) -> None:
        self.writer.finish()
        with distributed.together():
            if distributed.is_main():
                self._zip()

    def abort(self) -> None:
        self.writer.abort()

    def _zip(self) -> None:
        """PNGs are compressed already: they are stored as they are."""
        with writing(self.path), NewFile(self.path) as file, zipfile.ZipFile(file.temporary, "w") as archive:
            for name in self._videos:
                for png in sorted((self.writer.folder / name).glob("*.png")):
                    archive.write(png, png.relative_to(self.folder).as_posix())
