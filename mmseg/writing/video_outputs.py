"""What a segmented video leaves behind: label maps, overlays, an overlay video, probabilities, numbers as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.files import NewFile, make_folder, write_bytes
from mmseg.images import write_jpeg
from mmseg.structures import Result
from mmseg.visualization import Legend, overlay, side_by_side
from mmseg.visualization.video_writer import VideoWriter
from mmseg.writing.base import inside
from mmseg.writing.label_png import write_label_png
from mmseg.writing.result_folder import RECORD

LEAST_PROBABILITY = 0.01  # rows of probabilities that stay below it everywhere are not stored
_QUALITY = 92  # of JPEG


class Output:
    """Base of what takes the results of one video, in frame order; the files grow in a folder of its own."""

    def add(self, result: Result) -> None:
        """Take one result."""
        raise NotImplementedError

    def close(self, whole: bool = True) -> None:
        """Finish the files. Raises WriteError.

        Args:
            whole: all results are there; else only those until a signal came.
        """

    def discard(self) -> None:
        """The files are not wanted any more. Raises nothing."""


class LabelMaps(Output):
    """``labels/<frame>.png`` of mode P, pixel = class number or object id; none for frames without result.

    Args:
        folder: of the video.
        table: (256, 3) uint8 RGB palette.
    """

    def __init__(self, folder: Path, table: np.ndarray) -> None:
        self.folder, self._palette = make_folder(folder / "labels"), table.tobytes()

    def add(self, result: Result) -> None:
        if result.labels is not None:
            write_label_png(inside(self.folder, result.frame.name, ".png"), result.labels, self._palette)


class Painter:
    """Pictures of one video for people.

    Args:
        table: (256, 3) uint8 RGB colours of the labels.
        opacity: of the colours, 0 to 1.
        legend: what writes the names of the classes beside them; None: nothing does.
        beside: the frame itself stands to the left.
    """

    def __init__(self, table: np.ndarray, opacity: float, legend: Legend | None = None, beside: bool = False) -> None:
        self.table, self.opacity, self.legend, self.beside = table, opacity, legend, beside

    def __call__(self, result: Result) -> np.ndarray:
        """(H, W', 3) uint8 BGR; the frame alone where there is no result."""
        frame, labels = result.frame.picture(), result.labels
        if self.beside:
            picture = side_by_side(frame, [labels], self.table, self.opacity)
        else:
            picture = frame if labels is None else overlay(frame, labels, self.table, self.opacity)
        return picture if self.legend is None else self.legend.attach(picture, labels)


class Paintings(Output):
    """``overlay/<frame>.jpg`` and ``<video>_overlay.mp4`` (broken off: ``.part.mp4``), or one of the two; painted once.

    Args:
        folder: of the video.
        painter: of its frames.
        pictures: whether there are pictures.
        video: name of the video without suffix, if there is one.
        fps: frames per second; None: 15.
        sar: width of a pixel divided by its height.
    """

    def __init__(
        self, folder: Path, painter: Painter, pictures: bool, video: str | None, fps: Fraction | None, sar: Fraction
    ) -> None:
        self.painter = painter
        self.folder = make_folder(folder / "overlay") if pictures else None
        self.video = None if video is None else VideoWriter(folder / f"{video}_overlay", fps, sar)

    def add(self, result: Result) -> None:
        picture = self.painter(result)
        if self.folder is not None:
            write_jpeg(inside(self.folder, result.frame.name, ".jpg"), picture, _QUALITY)
        if self.video is not None:
            self.video.write(picture)

    def close(self, whole: bool = True) -> None:
        if self.video is not None and whole:
            self.video.close()
        elif self.video is not None:
            self.video.keep_part()

    def discard(self) -> None:
        if self.video is not None:
            self.video.discard()


class Probabilities(Output):
    """``probs/<frame>.npz``: ``probabilities`` (R, H, W) float16 at the size of the frame, and ``rows`` (R,), the class
    number or object id of each row. Rows below 0.01 in the whole frame are left out: most of 124 classes are.

    Args:
        folder: of the video.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder / "probs")

    def add(self, result: Result) -> None:
        if result.labels is None:
            return
        values = result.probabilities
        kept = np.flatnonzero(values.reshape(len(values), -1).max(axis=1) >= LEAST_PROBABILITY)
        rows = kept if result.ids is None else np.asarray(result.ids)[kept]
        encoded = io.BytesIO()
        np.savez_compressed(encoded, probabilities=values[kept].astype(np.float16), rows=rows.astype(np.int64))
        write_bytes(inside(self.folder, result.frame.name, ".npz"), encoded.getvalue(), sync=False)


def numbers_name(video: str) -> str:
    """Name of the file with the numbers of a video; ``run.json`` is the record of all results."""
    name = f"{video}.json"
    return f"{video}_.json" if name.lower() == RECORD else name


class Numbers(Output):
    """``<video>.json``: what is seen in every frame, when and where; written line by line.

    ``{"video", "fps", "width", "height", "frames": [{"frame", "name", "time", "labels": [{"label", "name", "area",
    "box"}]}]}``: `time` in seconds (null where the frame rate is not known), `area` in pixels, `box` left, top, width
    and height in pixels; ``labels`` is null for a frame without result.

    Args:
        path: of the file.
        head: what stands before the frames.
        fps: frames per second of the source, if it is known.
        names: of the classes; None: labels are ids of objects, and 0, background, is left out.
    """

    def __init__(self, path: Path, head: dict[str, Any], fps: Fraction | None, names: Sequence[str] | None) -> None:
        self.head, self.fps, self.names = head, fps, names
        self._file = NewFile(path)
        self._count = 0

    def add(self, result: Result) -> None:
        if self._count == 0:
            height, width = result.frame.picture().shape[:2]
            head = json.dumps({**self.head, "width": width, "height": height}, indent=1)
            self._file.write(f'{head.removesuffix("}").rstrip()},\n "frames": [\n'.encode())
        frame = result.frame
        entry = {
            "frame": frame.number,
            "name": frame.name,
            "time": None if self.fps is None else round(float(frame.number / self.fps), 6),
            "labels": None if result.labels is None else self._seen(result),
        }
        self._file.write((",\n" * bool(self._count) + "  " + json.dumps(entry)).encode())
        self._count += 1

    def _seen(self, result: Result) -> list[dict[str, Any]]:
        labels = np.ascontiguousarray(result.labels)
        counts = np.bincount(labels.ravel(), minlength=256)
        present = [label for label in np.flatnonzero(counts).tolist() if label or result.ids is None]
        return [
            {
                "label": label,
                **({} if self.names is None or label >= len(self.names) else {"name": self.names[label]}),
                "area": int(counts[label]),
                "box": list(cv2.boundingRect(cv2.compare(labels, label, cv2.CMP_EQ))),
            }
            for label in present
        ]

    def close(self, whole: bool = True) -> None:
        if not self._count:
            self._file.write((json.dumps({**self.head, "frames": []})).encode())
        else:
            self._file.write(b"\n ]\n}\n")
        self._file.commit()

    def discard(self) -> None:
        self._file.discard()
