"""What stands beside submission PNGs for a look at single frames: the truth as PNGs, and the mIoU of every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmseg import distributed
from mmseg.evaluation.semantic import frame_miou
from mmseg.structures import Result, Video
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.text import TextWriter


class TruthPngWriter(LabelPngWriter):
    """The truth of every frame that has one, as :class:`LabelPngWriter` writes results; ignored pixels are 255."""

    def add(self, result: Result) -> None:
        super().add(replace(result, labels=result.frame.truth))


class FrameScoreWriter(TextWriter):
    """A text file with a line ``<video>/<frame file>:<mIoU of that frame>`` for every frame that has a truth.

    Args:
        path: of the file.
        ignore_index: label that does not count.
    """

    def __init__(self, path: str | Path, ignore_index: int = 255) -> None:
        super().__init__(path)
        self.ignore_index = ignore_index
        self._lines: dict[int, list[str]] = {}  # number of a video -> its lines

    def begin_video(self, video: Video) -> None:
        self._lines[video.index] = []

    def add(self, result: Result) -> None:
        frame = result.frame
        if result.labels is None or frame.truth is None:
            return
        name = f"{frame.name}.jpg" if frame.path is None else Path(frame.path).name
        score = frame_miou(result.labels, frame.truth, self.ignore_index)
        self._lines[result.video.index].append(f"{result.video.name}/{name}:{score}\n")

    def text(self) -> str:
        joined = {index: lines for part in distributed.all_gather_object(self._lines) for index, lines in part.items()}
        return "".join(line for index in sorted(joined) for line in joined[index])
