"""``report.html`` of a test run: pictures of its worst frames are kept while it runs, the file appears at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmseg import distributed
from mmseg.evaluation import Evaluator
from mmseg.evaluation.frame_scores import WorstFrames
from mmseg.structures import Frame, Result, Video
from mmseg.visualization.report import ShownFrame, render_report
from mmseg.writing.report_content import report_content
from mmseg.writing.text import TextWriter


class ReportPageWriter(TextWriter):
    """A report with scores, curves and the worst frames.

    The evaluators are fed before the writers, so that the score of a frame is known when it comes; that a frame does
    not count, as the last one of a video, only at the end of the video: the newest frame is held back until then.

    Args:
        path: of the file.
        evaluators: of this process; in the main one they hold all videos at the end.
        facts: of the run, see :func:`report_content`.
        table: (256, 3) RGB colours of the labels.
        class_names: names in label order; None: labels are numbers of objects.
        num_frames: how many frames are shown at most.
    """

    def __init__(
        self,
        path: str | Path,
        evaluators: Sequence[Evaluator],
        facts: Mapping[str, Any],
        table: np.ndarray,
        class_names: Sequence[str] | None = None,
        num_frames: int = 16,
    ) -> None:
        super().__init__(path)
        self.evaluators, self.facts = evaluators, facts
        self.table, self.class_names = table, class_names
        self.num_frames, self._num_known = num_frames, 0
        self._worst = WorstFrames(num_frames, 0)
        self._ranking: int | None = None  # place of the first evaluator that has a score of a frame
        self._held: tuple[float, str, Frame, np.ndarray] | None = None

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        super().start(videos, owners)
        known = [video.num_frames or 0 if video.truths is None else len(video.truths) for video in videos]
        self._num_known = sum(known)
        self._worst = WorstFrames(self.num_frames, self._num_known)

    def begin_video(self, video: Video) -> None:
        self._held = None

    def add(self, result: Result) -> None:
        frame, video = result.frame, result.video.name
        if result.labels is None or frame.truth is None:
            return
        scores = [evaluator.frame_score(video) for evaluator in self.evaluators]
        first = next((place for place, score in enumerate(scores) if not np.isnan(score)), None)
        self._let_go()
        if first is not None and (self._ranking is None or first < self._ranking):
            # what came before does not count for it, as the first frame of a video
            self._ranking, self._worst = first, WorstFrames(self.num_frames, self._num_known)
        if self._ranking is not None:
            self._held = scores[self._ranking], video, frame, result.labels

    def end_video(self) -> None:
        if self._held is None:
            return
        _, video, frame, _ = self._held
        counted = self.evaluators[self._ranking].frame_scores(video)
        if counted is not None and counted.numbers and counted.numbers[-1] == frame.number:
            self._let_go()
        self._held = None

    def _let_go(self) -> None:
        """Offer the frame that is held back."""
        if self._held is not None:
            score, video, frame, labels = self._held
            show = partial(self._shown, frame, labels)
            self._worst.offer(score, video, frame.number, show)
            self._held = None

    def _shown(self, frame: Frame, labels: np.ndarray) -> ShownFrame:
        return ShownFrame.of(frame.name, frame.picture(), frame.truth, labels)

    def text(self) -> str:
        found = [own for own in distributed.all_gather_object((self._ranking, self._worst)) if own[0] is not None]
        if not distributed.is_main():
            return ""
        ranking, worst = min((place for place, _ in found), default=0), WorstFrames(self.num_frames, self._num_known)
        for place, frames in found:
            if place == ranking:
                worst.merge(frames)
        content = report_content(self.facts, self.evaluators, worst, self.table, self.class_names, ranking=ranking)
        return render_report(f"Test of {self.facts.get('checkpoint') or 'an untrained network'}", content)
