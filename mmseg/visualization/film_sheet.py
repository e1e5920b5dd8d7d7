"""A video on one page: frames over time under their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmseg.visualization.contact_sheet import MARGIN, most_frequent, shrink, titled_row
from mmseg.visualization.legend import legend_strip
from mmseg.visualization.painting import OPACITY, overlay


@dataclass
class Shot:
    """One moment of a video.

    Attributes:
        title: which it is.
        frame: (H, W, 3) uint8 BGR.
        maps: title -> (H, W) uint8 labels, or None, where the frame itself is shown.
    """

    title: str
    frame: np.ndarray
    maps: Mapping[str, np.ndarray | None]

    def shrunk(self, width: int) -> Shot:
        """The shot at `width` pixels."""
        frame, maps = shrink(self.frame, self.maps.values(), width)
        return Shot(self.title, frame, dict(zip(self.maps, maps)))


def film_sheet(
    shots: Sequence[Shot],
    table: np.ndarray,
    class_names: Sequence[str] | None = None,
    columns: int = 4,
    width: int = 320,
    opacity: float = OPACITY,
) -> np.ndarray:
    """The shots in lines from left to right, their maps below each other, and the legend: (H, W, 3) uint8 BGR.

    Args:
        shots: in the order of time, with the same maps and of one size.
        table: (256, 3) RGB colours of the labels.
        class_names: names in label order; None: labels are numbers of objects.
        columns: shots in a line.
        width: of a shot in pixels.
        opacity: of the colours.
    """
    columns = min(columns, len(shots))
    sheet_width = columns * (width + MARGIN) + MARGIN
    counts, parts = np.zeros(256, np.int64), []
    for first in range(0, len(shots), columns):
        line = [shot.shrunk(width) for shot in shots[first : first + columns]]
        for name in line[0].maps:
            titles, pictures = [], []
            for shot in line:
                labels = shot.maps[name]
                titles.append(f"{shot.title}  {name}" if len(shot.maps) > 1 else shot.title)
                pictures.append(shot.frame if labels is None else overlay(shot.frame, labels, table, opacity))
                if labels is not None:
                    counts += np.bincount(labels.ravel(), minlength=256)
            parts.append(titled_row(titles, pictures, width, sheet_width))
    parts.append(legend_strip(most_frequent(counts, table, class_names), class_names, table, sheet_width, opacity))
    return np.concatenate(parts)
