"""The score of every frame, as evaluators keep them, and the frames that score worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

LARGEST_STRIDE = 8
"""Of so many frames in a row at most only the worst one is among the worst frames: neighbours show the same fault."""


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
    """The worst frames of a stream of them, at most `limit`, and one of each `stride` in a row of a video.

    The result does not depend on the order in which frames come, nor on how they were dealt to several of these.

    Args:
        limit: how many frames are kept.
        num_frames: how many will come; where these are few, they may follow each other more closely.
    """

    def __init__(self, limit: int, num_frames: int) -> None:
        self.limit = limit
        self.stride = max(1, min(LARGEST_STRIDE, num_frames // max(limit, 1)))
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
        frame, place = WorstFrame(score, video, number), (video, number // self.stride)
        rival = self._kept.get(place)
        if rival is None and len(self._kept) == self.limit:
            rival = max(self._kept.values(), key=lambda kept: kept[:3])
        if rival is not None and frame[:3] >= rival[:3]:
            return
        if rival is not None:
            del self._kept[rival.video, rival.number // self.stride]
        self._kept[place] = frame._replace(shown=show())

    def merge(self, other: WorstFrames) -> None:
        """Take in the frames of another one, of other videos."""
        for frame in other._kept.values():
            self.offer(*frame[:3], lambda frame=frame: frame.shown)

    def show(self, make: Callable[[WorstFrame], Any]) -> None:
        """Keep what `make` gives of each frame."""
        self._kept = {place: frame._replace(shown=make(frame)) for place, frame in self._kept.items()}

    def sorted(self) -> list[WorstFrame]:
        """From bad to good."""
        return sorted(self._kept.values(), key=lambda kept: kept[:3])


def worst_frames(scores: Mapping[str, FrameScores], limit: int) -> WorstFrames:
    """The worst frames of complete videos, by name; nothing is kept of them yet."""
    worst = WorstFrames(limit, sum(len(own.numbers) for own in scores.values()))
    for video, own in scores.items():
        for number, score in zip(own.numbers, own.ranking):
            worst.offer(float(score), video, number)
    return worst
