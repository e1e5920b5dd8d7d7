"""Label maps as PNGs, ``<folder>/<video>/<frame>.png``: what the VSPW server takes, written and read."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg import distributed
from mmseg.errors import DataError
from mmseg.files import check_folder, make_folder, write_bytes, writing
from mmseg.images import read_mask
from mmseg.locks import exclusive
from mmseg.structures import Result, Video
from mmseg.writing.base import ResultWriter, inside, tell_of_leftovers
from mmseg.writing.parts import PartFolder

NAMED_AT_MOST = 5
"""How many missing files an error message names."""


class LabelPngWriter(ResultWriter):
    """8-bit palette PNGs, ``<folder>/<video>/<frame>.png``; pixel = network label, 0..K-1.

    The videos of a run appear together when all are complete, each in place of what an earlier run has left of it.
    Frames without result have no file.

    Args:
        folder: where the video folders go.
        table: (256, 3) uint8 RGB palette.
    """

    def __init__(self, folder: str | Path, table: np.ndarray) -> None:
        self.folder = Path(folder)
        self._palette = np.asarray(table, np.uint8).tobytes()
        self._parts = PartFolder(self.folder)
        self._videos: list[str] = []

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        # Those that this process lets appear: the main process all, others their own where only they see them.
        mine = [distributed.rank() in (0, owner) for owner in owners]
        self._videos = sorted(video.name for video, publish in zip(videos, mine) if publish)
        with distributed.together():
            check_folder(self.folder)  # told now, not when everything is computed
        self._parts.make()

    def begin_video(self, video: Video) -> None:
        make_folder(inside(self._parts.path, video.name))

    def add(self, result: Result) -> None:
        if result.labels is not None:
            folder = inside(self._parts.path, result.video.name)
            self.write(inside(folder, result.frame.name, ".png"), result.labels)

    def write(self, path: Path, labels: np.ndarray) -> None:
        """Write one label map (H, W) uint8."""
        write_label_png(path, labels, self._palette)

    def finish(self) -> None:
        distributed.barrier()  # the videos of all processes are complete
        for turn in (True, False):
            with distributed.together():
                if distributed.is_main() == turn:
                    self._publish()
        self._parts.remove()
        with distributed.together():
            if distributed.is_main():
                self._look_back()

    def _look_back(self) -> None:
        """Called by the main process when all is written: what other runs have left is told."""
        tell_of_leftovers(self.folder, self._others())

    def _others(self) -> list[str]:
        """The folders of videos of other runs."""
        mine = {name.split("/")[0] for name in self._videos}
        folders = [path for path in self.folder.glob("[!.]*") if path.name not in mine]
        return [path.name for path in folders if next(path.rglob("*.png"), None) is not None]

    def abort(self) -> None:
        self._parts.remove()

    def _publish(self) -> None:
        """Let the videos of this process appear, all in one moment."""
        make_folder(self.folder)
        with exclusive(self.folder.parent):
            for number, name in enumerate(self._videos):
                self._move(name, self._parts.path / f".replaced.{distributed.rank()}.{number}")

    def _move(self, name: str, trash: Path) -> None:
        new, final = inside(self._parts.path, name), inside(self.folder, name)
        if not new.exists():  # it came along with another video, in whose folder it lies, or with the main process
            return
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                os.rename(final, trash)
            os.rename(new, final)


def write_label_png(path: Path, labels: np.ndarray, palette: bytes) -> None:
    """Write an (H, W) uint8 map as a PNG of mode P with a palette of 768 bytes, or nothing. Raises WriteError."""
    image = Image.fromarray(labels)
    image.putpalette(palette)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    write_bytes(path, encoded.getvalue(), sync=False)


class LabelPngFolder:
    """Reads ``<folder>/<video>/<frame>.png``: palette or grey PNGs, of a test run or of any other origin.

    Args:
        folder: where the folders of the videos are.
        frames: video name -> names of its frames, oldest first.

    Raises:
        DataError: the folder or frames in it are missing; the first few are named.
    """

    def __init__(self, folder: str | Path, frames: Mapping[str, Sequence[str]]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}: no such folder", "a folder with one folder of PNGs per video", "check the path"
            )
        missing = [path for video, stems in frames.items() for path in self._missing(video, stems)]
        if missing:
            raise DataError(
                f"{self.folder}: {len(missing)} of {sum(map(len, frames.values()))} predictions are missing: "
                + ", ".join(missing[:NAMED_AT_MOST])
                + (", ..." if len(missing) > NAMED_AT_MOST else ""),
                "one PNG for every frame of the split",
                "predict them, or evaluate with a split file that leaves these videos out",
            )

    def _missing(self, video: str, frames: Sequence[str]) -> list[str]:
        folder = self.folder / video
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return [f"{video}/{frame}.png" for frame in frames if f"{frame}.png" not in found]

    def read(self, video: str, frame: str) -> np.ndarray:
        """The prediction of one frame as stored, (H, W) uint8. Raises DataError for a damaged or colour PNG."""
        return read_mask(self.folder / video / f"{frame}.png")
