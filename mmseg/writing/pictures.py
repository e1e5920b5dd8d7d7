"""Writers for people: overlay videos and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmseg import distributed
from mmseg.errors import DataError
from mmseg.structures import Result, Video
from mmseg.visualization import OverlayVideo, Row, contact_sheet, overlay
from mmseg.writing.results import ResultWriter


class OverlayVideoWriter(ResultWriter):
    """One side-by-side video (frame, prediction, truth) per video: ``<folder>/<video>.mp4``.

    Args:
        folder: where the videos go.
        table: (256, 3) uint8 RGB colours of the labels.
        fps: frames per second (VSPW was recorded at 15).
    """

    def __init__(self, folder: str | Path, table: np.ndarray, fps: float = 15.0) -> None:
        self.folder, self.table, self.fps = Path(folder), table, fps
        self._video: OverlayVideo | None = None

    def begin_video(self, video: Video) -> None:
        self._video = OverlayVideo(self.folder / video.name, self.table, self.fps)

    def add(self, result: Result) -> None:
        self._video.add(result.frame.picture(), result.labels, result.frame.truth)

    def end_video(self) -> None:
        self._video.close()
        self._video = None

    def abort(self) -> None:
        """Close the unfinished video and remove it."""
        if self._video is not None and self._video.path is not None:
            self._video.close()
            self._video.path.unlink(missing_ok=True)


class ContactSheetWriter(ResultWriter):
    """One picture with the middle frame of several videos, spread over the data set.

    Args:
        path: the picture file (.png or .jpg).
        table: (256, 3) uint8 RGB colours of the labels.
        class_names: names in label order.
        num_rows: how many videos are shown at most.
        width: width of one picture in pixels.
    """

    def __init__(
        self, path: str | Path, table: np.ndarray, class_names: Sequence[str], num_rows: int = 6, width: int = 320
    ) -> None:
        self.path, self.table, self.class_names = Path(path), table, class_names
        self.num_rows, self.width = num_rows, width
        self._wanted: dict[int, int] = {}
        self._rows: list[tuple[int, Row]] = []

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        count = min(self.num_rows, len(videos))
        chosen = [round(i * (len(videos) - 1) / max(1, count - 1)) for i in range(count)]
        self._wanted = {index: videos[index].num_frames // 2 for index in chosen}

    def add(self, result: Result) -> None:
        frame = result.frame
        if self._wanted.get(result.video.index) == frame.number:
            title = f"{result.video.name}  frame {frame.number}"
            row = Row(title, frame.picture(), result.labels, frame.truth).shrunk(self.width)
            self._rows.append((result.video.index, row))

    def finish(self) -> None:
        gathered = distributed.all_gather_object(self._rows)
        rows = [row for _, row in sorted((r for part in gathered for r in part), key=lambda r: r[0])]
        if not rows or not distributed.is_main():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet(rows, self.table, self.class_names, self.width)
        if not cv2.imwrite(str(self.path), sheet):
            raise DataError(f"cannot write {self.path}", "a writable folder and a .png or .jpg name", "check the path")


class WindowWriter(ResultWriter):
    """Shows each overlay in a window while testing."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def add(self, result: Result) -> None:
        cv2.imshow("prediction", overlay(result.frame.picture(), result.labels, self.table))
        cv2.setWindowTitle("prediction", f"{result.video.name} {result.frame.number}")
        cv2.waitKey(1)

    def finish(self) -> None:
        cv2.destroyAllWindows()
