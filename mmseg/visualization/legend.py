"""Which colour is which class: strips of patches and names, for sheets and beside the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mmseg.visualization.lettering import shortened, text_width, write_texts
from mmseg.visualization.painting import OPACITY
from mmseg.visualization.palette import IGNORE_INDEX

PAPER, INK = (255, 255, 255), (40, 40, 40)
_DARK_PAPER, _BRIGHT_INK, _FAINT_INK = (28, 28, 28), (235, 235, 235), (110, 110, 110)
_LONGEST_NAME = 8  # times the height of a line
_MOST_LINES = 4  # below a video
_SMALLEST_SHARE = 0.0005  # of the pixels of a frame that make a class worth a name
_WIDE = 2.0  # pictures wider than this have the strip below


def names_of_labels(class_names: Sequence[str] | None) -> list[str]:
    """Names in label order; None: the labels are numbers of objects, 0 being background."""
    if class_names is None:
        return ["background", *(f"object {label}" for label in range(1, IGNORE_INDEX))]
    return [str(name) for name in class_names[:IGNORE_INDEX]]


def patch(colour: np.ndarray, height: int, width: int, opacity: float) -> np.ndarray:
    """A colour (RGB) as it looks over frames, dark ones at its left and bright ones at its right: (H, W, 3) BGR."""
    ramp = np.linspace(40, 215, width, dtype=np.uint8)[None, :, None]
    frame = np.broadcast_to(ramp, (height, width, 3))
    return cv2.addWeighted(frame, 1 - opacity, np.broadcast_to(colour[::-1], frame.shape), opacity, 0)


@dataclass
class _Grid:
    """Cells of patch and name, line by line."""

    line: int  # height in pixels
    cell: int  # width
    columns: int
    lines: int

    @property
    def size(self) -> int:
        """Of the font."""
        return max(8, round(0.62 * self.line))

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width."""
        return max(4, round(0.66 * self.line)), round(1.3 * self.line)

    def corner(self, number: int) -> tuple[int, int]:
        """Left and top of a cell."""
        return self.line // 3 + number % self.columns * self.cell, self.line // 4 + number // self.columns * self.line

    @property
    def height(self) -> int:
        """Of all lines and the space above and below them."""
        return self.lines * self.line + 2 * (self.line // 4)


def _cell_width(names: Sequence[str], line: int) -> int:
    size, around = max(8, round(0.62 * line)), round(2.6 * line)  # patch and gaps
    return around + min(_LONGEST_NAME * line, max((text_width(name, size) for name in names), default=0))


def _draw(
    canvas: np.ndarray,
    grid: _Grid,
    entries: Sequence[tuple[str, np.ndarray | None, tuple[int, int, int]]],
    opacity: float,
    shift: int = 0,
) -> None:
    """Draw cells: name, RGB colour of the patch (or None) and ink of each."""
    texts, (high, wide) = [], grid.patch
    for number, (name, colour, ink) in enumerate(entries):
        x, y = grid.corner(number)
        x += shift
        middle, left = y + grid.line // 2, x
        if colour is not None:
            top = middle - high // 2
            place = canvas[top : top + high, x : x + wide]
            place[:] = patch(colour, high, wide, opacity)[: place.shape[0], : place.shape[1]]
            left += wide + grid.line // 3
        room = min(x + grid.cell, canvas.shape[1]) - left - grid.line // 3
        texts.append((shortened(name, room, grid.size), left, middle, ink))
    write_texts(canvas, texts, grid.size)


def legend_strip(
    labels: Sequence[int],
    class_names: Sequence[str] | None,
    table: np.ndarray,
    width: int,
    opacity: float = OPACITY,
    line: int = 20,
) -> np.ndarray:
    """The legend of a sheet, on white: as many columns as fit, as many lines as it takes.

    Args:
        labels: which, in this order.
        class_names: names in label order; None: labels are numbers of objects.
        table: (256, 3) RGB.
        width: of the strip in pixels.
        opacity: of the overlays, which the patches look like.
        line: height of a line in pixels.

    Returns:
        (H, width, 3) uint8 BGR.
    """
    names = names_of_labels(class_names)
    cell = _cell_width([names[label] for label in labels], line)
    columns = max(1, (width - line // 3) // cell)
    grid = _Grid(line, cell, columns, -(-len(labels) // columns))
    strip = np.full((grid.height, width, 3), PAPER, np.uint8)
    _draw(strip, grid, [(names[label], table[label], INK) for label in labels], opacity)
    return strip


class Legend:
    """The legend of a video: a dark strip of constant size beside its frames, so that it hides nothing.

    Classes are listed as they come and stay in their place: those of the first frame in the order of their labels,
    later ones behind them. The name of a class that is not in the frame is faint. When all places are taken, a new
    class gets that of the one which has been absent for longest; if all are in the frame, the last cell counts those
    without a place. Classes with less than 0.05 % of a frame's pixels are not listed, nor those that are not painted
    (background). One instance serves one video.

    Args:
        table: (256, 3) RGB colours of the labels.
        class_names: names in label order; None: labels are numbers of objects.
        opacity: of the overlays, which the patches look like.
        place: of the strip; None: below wide pictures, else to the right.
    """

    def __init__(
        self,
        table: np.ndarray,
        class_names: Sequence[str] | None = None,
        opacity: float = OPACITY,
        place: Literal["below", "right"] | None = None,
    ) -> None:
        self.table, self.opacity, self.place = table, opacity, place
        self._names = names_of_labels(class_names)
        self._listed = np.zeros(256, bool)
        self._listed[: len(self._names)] = table[: len(self._names)].any(axis=1)
        self._grid: _Grid | None = None
        self._slots: list[int] = []
        self._seen: dict[int, int] = {}  # class -> number of the last frame that shows it
        self._count = 0
        self._drawn: tuple[object, np.ndarray] | None = None

    def attach(self, picture: np.ndarray, *maps: np.ndarray | None) -> np.ndarray:
        """The picture with the strip; all pictures of a video must have one size.

        Args:
            picture: (H, W, 3) uint8 BGR: an overlay, or several beside each other.
            maps: (H', W') uint8 label maps that are painted in it.
        """
        if self._grid is None:
            self._lay_out(*picture.shape[:2])
        present = self._present([labels for labels in maps if labels is not None])
        missing = self._find_places(present)
        state = (tuple(self._slots), frozenset(present), missing, picture.shape)
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = state, self._strip(picture.shape, present, missing)
        return np.concatenate([picture, self._drawn[1]], axis=0 if self.place == "below" else 1)

    def _lay_out(self, height: int, width: int) -> None:
        """Choose place and size of the strip."""
        self.place = self.place or ("below" if width > _WIDE * height else "right")
        line = int(np.clip(round(max(height / 22, width / 110)), 14, 44))
        names = [self._names[label] for label in np.flatnonzero(self._listed)]
        cell = _cell_width(names, line)
        if self.place == "right":
            self._grid = _Grid(line, cell, 1, max(1, (height - line // 2) // line))
        else:
            columns = max(1, (width - line // 3) // cell)
            self._grid = _Grid(line, cell, columns, max(1, min(_MOST_LINES, -(-len(names) // columns))))
        places = self._grid.columns * self._grid.lines
        self._places = places if len(names) <= places else max(1, places - 1)  # the last cell counts the others

    def _present(self, maps: Sequence[np.ndarray]) -> list[int]:
        """Classes that are seen in one of the maps, in the order of their labels."""
        seen = np.zeros(256, bool)
        for labels in maps:
            counts = cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256]).ravel()
            seen |= counts >= max(1, _SMALLEST_SHARE * labels.size)
        return np.flatnonzero(seen & self._listed).tolist()

    def _find_places(self, present: Sequence[int]) -> int:
        """Give new classes a place; how many have none."""
        self._count += 1
        self._seen.update(dict.fromkeys(present, self._count))
        missing = 0
        for label in present:
            if label in self._slots:
                continue
            absent = [slot for slot in self._slots if self._seen[slot] < self._count]
            if len(self._slots) < self._places:
                self._slots.append(label)
            elif absent:
                oldest = min(absent, key=lambda slot: self._seen[slot])
                self._slots[self._slots.index(oldest)] = label
            else:
                missing += 1
        return missing

    def _strip(self, shape: tuple[int, ...], present: Sequence[int], missing: int) -> np.ndarray:
        grid = self._grid
        below = self.place == "below"
        size = (grid.height, shape[1]) if below else (shape[0], grid.cell + grid.line // 3)
        strip = np.full((*size, 3), _DARK_PAPER, np.uint8)
        entries: list[tuple[str, np.ndarray | None, tuple[int, int, int]]] = []
        for label in self._slots:
            here = label in present
            colour = self.table[label] if here else self.table[label] // 3
            entries.append((self._names[label], colour, _BRIGHT_INK if here else _FAINT_INK))
        if missing:
            entries.append((f"+ {missing} more", None, _BRIGHT_INK))
        _draw(strip, grid, entries, self.opacity)
        return strip
