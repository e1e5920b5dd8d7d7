"""The score of every frame, as evaluators keep them, and the frames that score worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

STRIDE = 8
"""Of so many frames in a row only the worst one is among the worst frames: neighbours show the same fault again."""


@dataclass(frozen=True)
class FrameScores:
    """The scores of the frames of a video that count.

    Attributes:
        numbers: of the frames, ascending.
        curves: name -> a score for each of them, nan where it has none. The first curve ranks the frames.
    """

    numbers: Sequence[int]
    curves: Mapping[str, Sequence[float]]

    @property
    def ranking(self) -> Sequence[float]:
        """The scores that say which frame is worse."""
        return next(iter(self.curves.values()))


class WorstFrame(NamedTuple):
    """One of the worst frames; sorts from bad to good."""

    score: float
    video: str
    number: int
    shown: Any = None  # what is kept of it


class WorstFrames:
    """The worst frames of a stream of them, at most `limit`, and one of each :data:`STRIDE` in a row of a video.

    The result does not depend on the order in which frames come, nor on how they were dealt to several of these.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[tuple[str, int], WorstFrame] = {}

    def offer(self, score: float, video: str, number: int, show: Callable[[], Any] = lambda: None) -> None:
        """Take a frame in, if it is bad enough; one without a score (nan) is not.

        Args:
            score: of the frame; less is worse.
            video, number: which it is.
            show: makes what is to be kept of it; called only if it is kept for now.
        """
        if math.isnan(score) or not self.limit:
            return
        frame, place = WorstFrame(score, video, number), (video, number // STRIDE)
        rival = self._kept.get(place)
        if rival is None and len(self._kept) == self.limit:
            rival = max(self._kept.values(), key=lambda kept: kept[:3])
        if rival is not None and frame[:3] >= rival[:3]:
            return
        if rival is not None:
            del self._kept[rival.video, rival.number // STRIDE]
        self._kept[place] = frame._replace(shown=show())

    def merge(self, other: WorstFrames) -> None:
        """Take in the frames of another one, of other videos."""
        for frame in other._kept.values():
            self.offer(*frame[:3], lambda frame=frame: frame.shown)

    def sorted(self) -> list[WorstFrame]:
        """From bad to good."""
        return sorted(self._kept.values(), key=lambda kept: kept[:3])


def worst_frames(scores: Mapping[str, FrameScores], limit: int) -> list[WorstFrame]:
    """The worst frames of complete videos, by name; see :class:`WorstFrames`."""
    worst = WorstFrames(limit)
    for video, own in scores.items():
        for number, score in zip(own.numbers, own.ranking):
            worst.offer(float(score), video, number)
    return worst.sorted()
