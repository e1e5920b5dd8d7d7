"""Binary masks as the DAVIS toolkits take them, and the same painted for people."""

from __future__ import annotations

import io
import logging
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg import distributed
from mmseg.files import make_folder, write_bytes
from mmseg.images import write_jpeg
from mmseg.structures import Result, Video
from mmseg.visualization import colourise, overlay
from mmseg.writing.base import ResultWriter, inside, tell_of_leftovers
from mmseg.writing.label_png import LabelPngWriter

logger = logging.getLogger("mmseg.writing")


class ObjectMaskWriter(LabelPngWriter):
    """8-bit grey PNGs, ``<folder>/<video>/<frame>.png``; 255 where the label is not 0.

    They are written from the label maps, so that nothing is lost.

    Args:
        folder, table: see :class:`LabelPngWriter`.
        scored_whole: videos of an earlier run that this one does not have are removed.
    """

    def __init__(self, folder: str | Path, table: np.ndarray, scored_whole: bool = True) -> None:
        super().__init__(folder, table)
        self.scored_whole = scored_whole

    def start(self, videos, owners) -> None:
        super().start(videos, owners)
        self._all = {video.name for video in videos}

    def write(self, path: Path, labels: np.ndarray) -> None:
        """See :meth:`LabelPngWriter.write`."""
        encoded = io.BytesIO()
        Image.fromarray(np.where(labels > 0, np.uint8(255), np.uint8(0))).save(encoded, format="PNG")
        write_bytes(path, encoded.getvalue(), sync=False)

    def _look_back(self) -> None:
        """Where all of the folder is scored, masks of other videos must not stay."""
        if self.scored_whole:
            self._remove_stale()
        super()._look_back()

    def _remove_stale(self) -> None:
        for folder in sorted(self.folder.iterdir()):
            mine = any(name == folder.name or name.startswith(f"{folder.name}/") for name in self._all)
            if mine or folder.name.startswith(".") or not folder.is_dir():
                continue
            if all(path.is_file() and path.suffix == ".png" for path in folder.iterdir()):
                logger.warning("%s: removed, masks of an earlier run", folder)
                shutil.rmtree(folder)


class PaintingWriter(ResultWriter):
    """JPEGs ``<folder>/<video>_<frame>.jpg`` with the colours of the labels over the frame.

    Args:
        folder: where they go.
        table: (256, 3) uint8 RGB palette.
        opacity: 1 shows the colours alone.
    """

    def __init__(self, folder: str | Path, table: np.ndarray, opacity: float = 1.0) -> None:
        self.folder, self.table, self.opacity = Path(folder), table, opacity

    def start(self, videos: list[Video], owners: list[int]) -> None:
        self._starts = tuple(f"{video.name.replace('/', '_')}_" for video in videos)
        with distributed.together():
            make_folder(self.folder)

    def finish(self) -> None:
        if distributed.is_main():
            paintings = [path.name for path in self.folder.glob("[!.]*.jpg")]
            tell_of_leftovers(self.folder, [name for name in paintings if not name.startswith(self._starts)])

    def add(self, result: Result) -> None:
        if result.labels is None:
            return
        if self.opacity < 1:
            picture = overlay(result.frame.picture(), result.labels, self.table, self.opacity)
        else:
            picture = colourise(result.labels, self.table)
        path = inside(self.folder, f"{result.video.name.replace('/', '_')}_{result.frame.name}", ".jpg")
        write_jpeg(path, picture)
