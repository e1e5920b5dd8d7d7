"""What the test loop, training and the tools ask of an evaluator: frames in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mmseg.evaluation.frame_scores import FrameScores


class Evaluator(Protocol):
    """An accumulator that a data set gives for its scores (``dataset.metrics(options)``).

    It can be pickled, and the numbers do not depend on how whole videos were dealt to evaluators.
    """

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Take the next frame of a video that has a result and a truth; both are (H, W) uint8."""

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete."""

    def merge(self, other: Any) -> None:
        """Take over the videos of an evaluator that was made with the same settings."""

    def compute(self) -> dict[str, Any]:
        """All numbers, as fractions in full precision; entries may be lists and dicts."""

    @property
    def score_names(self) -> Sequence[str]:
        """Names of the single numbers, known before any frame."""

    def why_undefined(self, name: str) -> str:
        """In words, when the score of this name is undefined."""

    def scores(self) -> dict[str, float]:
        """The single numbers by name; nan where undefined."""

    def check_plausible(self) -> None:
        """Raise DataError if the numbers can only come from input that does not fit together."""

    def tables(self) -> str:
        """The numbers for people."""

    in_percent = True
    """Whether people are shown the scores times 100."""

    def frame_score(self, video: str) -> float:
        """The score of the frame of `video` that was fed last; nan if it has none, or not yet."""
        return float("nan")

    def frame_scores(self, video: str) -> FrameScores | None:
        """The scores of all frames of a complete video that count; None: this evaluator has no scores of frames."""
        return None

    def report(self) -> dict[str, Any]:
        """The numbers for programs, as plain JSON values, with the rules behind them."""
