"""Temporal consistency as a picture: which pixels change their label although nothing has changed in the video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mmseg.visualization.heat_maps import heat
from mmseg.visualization.legend import INK, PAPER
from mmseg.visualization.lettering import shortened, write_texts
from mmseg.visualization.palette import IGNORE_INDEX

_SAME = 20  # of 255: colours of two smoothed frames that differ by less are one thing seen twice
_FLOW_HEIGHT = 240  # rows at which motion is estimated
_SMALLEST = 16  # side of a picture in which it can be
_RARELY = 0.2
_TOPS = (1, 2, 5, 10, 20, 50, 100)  # percent, ends of the scale
_MARGIN, _LINE, _SIZE = 6, 22, 12


@dataclass
class Step:
    """What can be compared between a frame and the one before.

    Attributes:
        places: columns and rows (H, W) float32 of the frame before where the things of each pixel have been.
        same: (H, W) bool: whether the pixel looks the same there.
    """

    places: tuple[np.ndarray, np.ndarray]
    same: np.ndarray


class Motion:
    """Follows the picture from frame to frame (dense inverse search, Kroeger et al., ECCV 2016).

    Attributes:
        first: the first frame, (H, W, 3) uint8 BGR; None before.
    """

    def __init__(self) -> None:
        self.first: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def step(self, frame: np.ndarray) -> Step | None:
        """The step to the next frame, (H, W, 3) uint8 BGR; None for the first one."""
        smooth = cv2.GaussianBlur(frame, (0, 0), 1.5)
        before, self._before = self._before, smooth
        if before is None:
            self.first = frame.copy()
            return None
        height, width = smooth.shape[:2]
        scale = min(1.0, _FLOW_HEIGHT / height)
        size = max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale))
        small = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (smooth, before))
        flow = self._flow.calc(*(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in small), None)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        places = columns + flow[..., 0] * (width / size[0]), rows + flow[..., 1] * (height / size[1])
        moved = cv2.remap(before, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return Step(places, cv2.absdiff(moved, smooth).max(axis=-1) < _SAME)


class Flicker:
    """Counts, over a video, where labels change without reason; in memory for two maps, whatever its length.

    Frames are compared with the one before along the motion of the picture. A pixel can be compared where it looks the
    same in both and is ignored in neither; it flickers if its label is then not found before, not even one pixel
    beside, for borders wander by one.

    Attributes:
        compared: (H, W) in how many frames each pixel could be compared with the frame before.
        changed: (H, W) in how many of these it flickered.
    """

    def __init__(self) -> None:
        self.compared = self.changed = np.zeros((0, 0), np.uint32)
        self._before: np.ndarray | None = None

    def add(self, step: Step | None, labels: np.ndarray) -> None:
        """The next map (H, W) uint8 (255: ignored), and how its frame has come from the one before."""
        before, self._before = self._before, labels.copy()
        if before is None or step is None:
            self.compared, self.changed = np.zeros(labels.shape, np.uint32), np.zeros(labels.shape, np.uint32)
            return
        outside = dict(borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX)
        before = cv2.remap(before, *step.places, cv2.INTER_NEAREST, **outside)
        known = step.same & (before != IGNORE_INDEX) & (labels != IGNORE_INDEX)
        self.compared += known
        self.changed += known & ~_near(before, labels)

    @property
    def share(self) -> float:
        """Flickering pixels among those that could be compared, over all frames, 0 to 1; NaN if there were none."""
        compared = int(self.compared.sum())
        return int(self.changed.sum()) / compared if compared else float("nan")

    def rates(self) -> np.ndarray:
        """(H, W) float32: in which part of the frames each pixel flickers.

        Pixels that could rarely be compared count as if it had been in a fifth of the frames: one of two is no 50 %.
        """
        rarely = max(1.0, _RARELY * float(self.compared.max(initial=0)))
        return (self.changed / np.maximum(self.compared, rarely)).astype(np.float32)


def _near(labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(H, W) bool: whether the wanted label is that of the place or of one of the eight around it."""
    height, width = labels.shape
    padded = np.pad(labels, 1, mode="edge")
    found = np.zeros(labels.shape, bool)
    for top in range(3):
        for left in range(3):
            found |= padded[top : top + height, left : left + width] == wanted
    return found


def flicker_sheet(background: np.ndarray, videos: Mapping[str, Flicker], width: int = 480) -> np.ndarray:
    """Heat maps over a frame, beside each other with one scale below: (H, W, 3) uint8 BGR.

    Args:
        background: (H, W, 3) uint8 BGR, of the video.
        videos: title -> what has been counted; several results for one video, so that they can be compared.
        width: of a picture in pixels.
    """
    size = width, max(1, round(width * background.shape[0] / background.shape[1]))
    picture = cv2.resize(background, size, interpolation=cv2.INTER_AREA)
    heats = {
        title: cv2.resize(flicker.rates(), size, interpolation=cv2.INTER_AREA) for title, flicker in videos.items()
    }
    highest = max(float(np.quantile(rates, 0.999)) for rates in heats.values())
    top = next((end for end in _TOPS if end >= 100 * highest), 100) / 100
    columns = []
    for title, rates in heats.items():
        share = videos[title].share
        number = "nothing to compare" if np.isnan(share) else f"{100 * share:.2f} % of pixels flicker"
        head = np.full((_LINE, width, 3), PAPER, np.uint8)
        write_texts(head, [(shortened(f"{title}: {number}", width, _SIZE), 0, _LINE // 2, INK)], _SIZE)
        columns.append(np.concatenate([head, _heated(picture, rates / top)]))
    columns = [_bordered(column, bottom=_MARGIN, left=_MARGIN) for column in columns]
    sheet = _bordered(np.concatenate(columns, axis=1), right=_MARGIN)
    return np.concatenate([sheet, _scale(sheet.shape[1], top)])


def _bordered(picture: np.ndarray, bottom: int = 0, left: int = 0, right: int = 0) -> np.ndarray:
    return cv2.copyMakeBorder(picture, 0, bottom, left, right, cv2.BORDER_CONSTANT, value=PAPER)


def _heated(picture: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Strengths (H, W), 0 to 1, as heat over the picture in dark grey."""
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 2
    strength = np.clip(strength, 0, 1)
    opacity = np.minimum(1, 5 * strength)[..., None]
    return np.rint(grey * (1 - opacity) + heat(strength) * opacity).astype(np.uint8)


def _scale(width: int, top: float) -> np.ndarray:
    """The colours from 0 to `top` with their numbers."""
    strip = np.full((2 * _LINE, width, 3), PAPER, np.uint8)
    length = min(300, width - 2 * _MARGIN)
    ramp = _heated(np.full((10, length, 3), 100, np.uint8), np.linspace(0, 1, length)[None].repeat(10, axis=0))
    strip[2:12, _MARGIN : _MARGIN + length] = ramp
    end = f"{100 * top:g} %"
    texts = [("0", _MARGIN, 22, INK), (end, _MARGIN + length - 30, 22, INK)]
    note = "of the frames: label changed, picture did not"
    texts.append((shortened(note, width - 2 * _MARGIN, _SIZE), _MARGIN, 36, INK))
    write_texts(strip, texts, _SIZE)
    return strip
