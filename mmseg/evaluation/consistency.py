"""Video consistency VC_C: do predictions stay constant where the truth does, over windows of C frames?

Data set paper: Miao et al., "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild", CVPR 2021. What
is computed is what the evaluation script of the VSPW code bases computes, bit for bit.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from mmseg.errors import ConfigError
from mmseg.evaluation import bits
from mmseg.evaluation.frame_order import FrameOrder, check_pair, check_same_size
from mmseg.evaluation.semantic import check_same_settings
from mmseg.registry import METRICS


class _VideoState:
    """What is kept of a video between two frames; its size does not depend on the length of the video."""

    def __init__(self, lengths: Sequence[int]) -> None:
        transitions = [length - 1 for length in lengths]
        self.truth = bits.SlidingIntersection(transitions)
        self.both = bits.SlidingIntersection(transitions)
        self.target: np.ndarray | None = None  # (H, W) uint8 of the frame before
        self.pred: np.ndarray | None = None


@METRICS.register_module()
class VideoConsistency:
    """VC_C for any clip lengths C, in a number of steps per frame that does not depend on C.

    A window of C frames scores |A and B| / |A|, where A is the set of pixels whose label is the same in all C
    frames and B the same for the prediction. The prediction has to be constant, not right. "Constant inside the
    window" is "no change between neighbours inside it", so one comparison with the frame before is enough.

    As in the published script, the very last window of a video is left out, the label of ignored pixels is a
    value like any other, a window without constant label is left out of the mean, the mean runs over all windows of
    all videos, and videos that are too short for the longest C count for no C.

    Args:
        lengths: clip lengths C, each at least 2.
        min_frames: shortest video that counts; default ``max(lengths) + 1``. With 1 each length takes all
            videos of more than C frames.
        all_windows: also count the last window of each video.
        ignore_void: leave pixels that are ignored in any frame of the window out of A.
        ignore_index: the label of ignored pixels, used by `ignore_void` only.
        video_order: names of all videos in the order of the split file; restores this order in the results.
        gaps: frames may be left out, those without truth; no window spans them.
    """

    def __init__(
        self,
        lengths: Sequence[int] = (8, 16),
        min_frames: int | None = None,
        all_windows: bool = False,
        ignore_void: bool = False,
        ignore_index: int = 255,
        video_order: Sequence[str] | None = None,
        gaps: bool = False,
    ) -> None:
        if not lengths or min(lengths) < 2 or len(set(lengths)) != len(lengths):
            raise ConfigError(f"lengths = {tuple(lengths)}", "different clip lengths of at least 2", "e.g. (8, 16)")
        self.lengths = tuple(lengths)
        self.min_frames = max(lengths) + 1 if min_frames is None else min_frames
        self.all_windows, self.ignore_void, self.ignore_index = all_windows, ignore_void, ignore_index
        self.video_order = None if video_order is None else list(video_order)
        self._order = FrameOrder(gaps=gaps)
        # video -> C -> |A and B| and |A| of every window, the last one included
        self._counts: dict[str, dict[int, tuple[array, array]]] = {}

    def check_next(self, video: str, frame: int, labels: np.ndarray) -> None:
        """Raise DataError unless `frame` is the next frame of `video` and `labels` (H, W) has its size."""
        self._order.check(video, frame)
        state = self._order.state(video)
        if state is not None:
            check_same_size(video, frame, labels, state.target)

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Take the next frame of a video.

        Args:
            video: name of the video.
            frame: its position, 0, 1, 2, ...
            pred: (H, W) class numbers.
            target: (H, W) labels, reduced: all ignored pixels carry the same value.

        Raises:
            DataError: the maps do not fit (:func:`check_pair`), differ in size from the frame before, or the frame
                is not the next one.
        """
        pred, target = check_pair(video, frame, pred, target)
        self.check_next(video, frame, target)
        state = self._order.state(video) or _VideoState(self.lengths)
        if state.target is None:
            if video not in self._counts:
                self._counts[video] = {length: (array("q"), array("q")) for length in self.lengths}
        else:
            self._count_windows(video, state, pred, target)
        state.target, state.pred = target.copy(), pred.copy()  # the caller may reuse its arrays
        self._order.advance(video, state, frame)

    def _count_windows(self, video: str, state: _VideoState, pred: np.ndarray, target: np.ndarray) -> None:
        """Score the windows that end at this frame."""
        unchanged = target == state.target  # (H, W)
        if self.ignore_void:  # unchanged and not void now: not void before either
            unchanged &= target != self.ignore_index
        truth = bits.pack(unchanged)
        both = truth & bits.pack(pred == state.pred)
        truth_constant, both_constant = state.truth.push(truth), state.both.push(both)
        for length, (joint, total) in self._counts[video].items():
            if length - 1 in truth_constant:
                joint.append(bits.count(both_constant[length - 1]))
                total.append(bits.count(truth_constant[length - 1]))

    @property
    def has_gaps(self) -> bool:
        """Whether frames may be left out."""
        return self._order.gaps

    @property
    def num_frames(self) -> dict[str, int]:
        """Frames fed so far by video, in the order of the split file if that is known."""
        return _reorder(self._order.num_frames, self.video_order)

    def windows(self, video: str) -> dict[int, np.ndarray]:
        """C -> scores of all windows of `video` that count, in order, float64; nan where no label is constant."""
        scores = {}
        for length, (joint, total) in self._counts[video].items():
            counted = slice(None) if self.all_windows else slice(0, -1)
            with np.errstate(invalid="ignore"):
                scores[length] = np.array(joint, dtype=np.int64)[counted] / np.array(total, dtype=np.int64)[counted]
        return scores

    def compute(self) -> dict[str, object]:
        """Scores over all videos of at least `min_frames` frames, as fractions.

        Returns:
            ``VC<C>`` for each C (nan when no window counts), ``video_VC<C>`` (name -> mean of its windows), ``windows``
            (C -> number of windows, those without constant label included), ``videos`` and ``frames`` that
            count, ``skipped`` (names of the videos that are too short).
        """
        num_frames = self.num_frames
        counted = [v for v, n in num_frames.items() if n >= self.min_frames]
        scores = {v: self.windows(v) for v in counted}
        result: dict[str, object] = {}
        for length in self.lengths:
            result[f"VC{length}"] = _mean(np.concatenate([scores[v][length] for v in counted] or [np.empty(0)]))
        for length in self.lengths:
            result[f"video_VC{length}"] = {v: _mean(scores[v][length]) for v in counted}
        return {
            **result,
            "windows": {length: sum(len(scores[v][length]) for v in counted) for length in self.lengths},
            "videos": len(counted),
            "frames": sum(num_frames[v] for v in counted),
            "skipped": [v for v in num_frames if v not in scores],
        }

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete: drop what was kept for its next frames."""
        self._order.end_video(video)

    def merge(self, other: VideoConsistency) -> None:
        """Take over the videos of `other`.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a video was fed to both.
        """
        check_same_settings(self._settings(), other._settings())
        self._order.merge(other._order)
        self._counts.update(other._counts)

    def _settings(self) -> tuple[object, ...]:
        return (self.lengths, self.min_frames, self.all_windows, self.ignore_void, self.ignore_index)


def _reorder(num_frames: dict[str, int], video_order: Sequence[str] | None) -> dict[str, int]:
    if video_order is None:
        return dict(num_frames)
    first = {v: num_frames[v] for v in video_order if v in num_frames}
    return {**first, **num_frames}


def _mean(scores: np.ndarray) -> float:
    """Mean of the defined scores. fsum rounds once, at the end: the order of the videos leaves no trace."""
    defined = scores[~np.isnan(scores)]
    return math.fsum(defined) / len(defined) if len(defined) else float("nan")
