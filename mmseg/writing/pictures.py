"""Writers for people: overlay videos, a contact sheet, a window."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg import distributed
from mmseg.errors import ConfigError
from mmseg.files import make_folder, sweep, write_bytes
from mmseg.folder_lock import FolderLock
from mmseg.structures import Result, Video
from mmseg.visualization import VIDEO_SUFFIXES, OverlayVideo, Row, contact_sheet, overlay
from mmseg.writing.base import ResultWriter, inside, tell_of_leftovers

_ADVICE = "--show-dir says where the pictures go"


class OverlayVideoWriter(ResultWriter):
    """One side-by-side video (frame, prediction, truth) per video: ``<folder>/<video>.mp4``.

    Args:
        folder: where the videos go.
        table: (256, 3) uint8 RGB colours of the labels.
        fps: frames per second.
        class_names: names in label order, for a legend; None: no legend.

    Raises:
        WriteError: another run writes to the folder.
    """

    def __init__(
        self, folder: str | Path, table: np.ndarray, fps: float = 15.0, class_names: Sequence[str] | None = None
    ) -> None:
        self.folder, self.table, self.fps, self.class_names = Path(folder), table, fps, class_names
        self._video: OverlayVideo | None = None
        self._names: set[str] = set()
        self._lock: FolderLock | None = None  # of the main process, for all of the run

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        self._names = {video.name for video in videos}
        with distributed.together():
            make_folder(self.folder, _ADVICE)
            if distributed.is_main():
                self._lock = FolderLock(self.folder, "the pictures of a test")
        with distributed.together():
            for folder in {inside(self.folder, video.name).parent for video in videos}:
                sweep(folder)

    def begin_video(self, video: Video) -> None:
        with_truth = None if video.truths is None else bool(video.truths)
        path = inside(self.folder, video.name)
        self._video = OverlayVideo(path, self.table, self.fps, with_truth, class_names=self.class_names)

    def add(self, result: Result) -> None:
        self._video.add(result.frame.picture(), result.labels, result.frame.truth)

    def end_video(self) -> None:
        self._video.close()
        self._video = None

    def finish(self) -> None:
        distributed.barrier()
        if distributed.is_main():
            tell_of_leftovers(self.folder, self._others())
        self._unlock()

    def _others(self) -> list[str]:
        """The videos of other runs."""
        files = [path for suffix in VIDEO_SUFFIXES for path in self.folder.rglob(f"[!.]*{suffix}")]
        names = [path.relative_to(self.folder) for path in files]
        return [name.as_posix() for name in names if name.with_suffix("").as_posix() not in self._names]

    def abort(self) -> None:
        if self._video is not None:
            self._video.discard()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _middle(video: Video) -> int:
    """The number of the frame that stands for a video."""
    middle = (video.num_frames or 0) // 2
    return min(video.truths or [middle], key=lambda number: abs(number - middle))


class SheetCollector(ResultWriter):
    """Makes one picture of the middle frame of several videos, spread over the data set.

    Where only some frames have a truth, it is the one of these that is nearest to the middle.

    Args:
        table: (256, 3) uint8 RGB colours of the labels.
        class_names: names in label order; None: labels are object numbers.
        num_rows: how many videos are shown at most.
        width: width of one picture in pixels.

    Attributes:
        sheet: (H, W, 3) uint8 BGR in the main process, when all videos are complete and there is a result to show.
    """

    def __init__(
        self, table: np.ndarray, class_names: Sequence[str] | None = None, num_rows: int = 6, width: int = 320
    ) -> None:
        self.table, self.class_names, self.num_rows, self.width = table, class_names, num_rows, width
        self.sheet: np.ndarray | None = None
        self._middles: dict[int, int] = {}  # video -> frame that is shown, or the first one after it with a result
        self._rows: dict[int, Row] = {}

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        count = min(self.num_rows, len(videos))
        chosen = [round(i * (len(videos) - 1) / max(1, count - 1)) for i in range(count)]
        self._middles = {index: _middle(videos[index]) for index in chosen}
        self._rows, self.sheet = {}, None

    def add(self, result: Result) -> None:
        index, frame = result.video.index, result.frame
        if result.labels is None or index in self._rows or frame.number < self._middles.get(index, np.inf):
            return
        title = f"{result.video.name}  frame {frame.number}"
        self._rows[index] = Row(title, frame.picture(), result.labels, frame.truth).shrunk(self.width)

    def finish(self) -> None:
        rows = {index: row for part in distributed.all_gather_object(self._rows) for index, row in part.items()}
        if rows and distributed.is_main():
            self.sheet = contact_sheet([rows[i] for i in sorted(rows)], self.table, self.class_names, self.width)


class ContactSheetWriter(SheetCollector):
    """Writes that picture to a file.

    Args:
        path: the picture file (.png or .jpg).
        others: see :class:`SheetCollector`.

    Raises:
        ConfigError: OpenCV cannot write such a file.
    """

    def __init__(self, path: str | Path, *others: Any, **more: Any) -> None:
        super().__init__(*others, **more)
        self.path = Path(path)
        if not cv2.haveImageWriter(self.path.name):
            raise ConfigError(f"contact sheet {self.path}", "a name that ends in .png or .jpg", "choose another name")

    def finish(self) -> None:
        super().finish()
        with distributed.together():
            if self.sheet is not None:
                write_bytes(self.path, cv2.imencode(self.path.suffix, self.sheet)[1].tobytes(), _ADVICE)


class WindowWriter(ResultWriter):
    """Shows each overlay in a window while testing.

    Args:
        table: (256, 3) uint8 RGB colours of the labels.

    Raises:
        ConfigError: OpenCV cannot open windows.
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        try:
            cv2.namedWindow("prediction")
        except cv2.error as error:  # a build without windows, or a display that does not answer
            raise ConfigError(
                "--show: OpenCV cannot open a window", "opencv-python and a display", "give --show-dir instead"
            ) from error

    def add(self, result: Result) -> None:
        picture = result.frame.picture()
        if result.labels is not None:
            picture = overlay(picture, result.labels, self.table)
        cv2.imshow("prediction", picture)
        cv2.setWindowTitle("prediction", f"{result.video.name} {result.frame.number}")
        cv2.waitKey(1)

    def finish(self) -> None:
        cv2.destroyAllWindows()


def has_display() -> bool:
    """Whether a window can be opened; OpenCV would end the process where it cannot."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
