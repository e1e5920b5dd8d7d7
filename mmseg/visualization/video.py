"""Overlay videos: frame, prediction and, where there is one, the truth side by side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmseg.visualization.legend import Legend
from mmseg.visualization.painting import side_by_side
from mmseg.visualization.video_writer import VideoWriter


class OverlayVideo(VideoWriter):
    """A video file that grows by one side-by-side picture per frame, see :class:`VideoWriter`.

    Args:
        path: the file without suffix.
        table: (256, 3) RGB colours of the labels.
        fps, sar: frames per second, and width of a pixel divided by its height.
        with_truth: whether there is a place for the truth; None: as the first frame has one or not.
        class_names: names in label order, which give the video a legend; None: none.
    """

    def __init__(
        self,
        path: str | Path,
        table: np.ndarray,
        fps: float | Fraction | None = None,
        with_truth: bool | None = None,
        sar: float | Fraction = 1,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, fps, sar)
        self.table = table
        self._legend = None if class_names is None else Legend(table, class_names)
        self._columns = 0 if with_truth is None else 2 + with_truth

    def add(self, frame: np.ndarray, prediction: np.ndarray | None, truth: np.ndarray | None = None) -> None:
        """Append one frame: (H, W, 3) uint8 BGR and its (H, W) uint8 label maps.

        Where a map is missing the frame itself is shown.
        """
        self._columns = self._columns or (2 if truth is None else 3)
        maps = [prediction, truth][: self._columns - 1]
        picture = side_by_side(frame, maps, self.table)
        self.write(picture if self._legend is None else self._legend.attach(picture, *maps))
