"""S, E, F and MAE of a video data set, as the tables of video saliency report them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mmseg.errors import DataError
from mmseg.evaluation.frame_order import check_other_videos, check_pair
from mmseg.evaluation.frame_scores import FrameScores
from mmseg.evaluation.object_evaluator import SHORTEST, mean
from mmseg.evaluation.saliency import TRUTH_THRESHOLD, SaliencyScores, saliency_scores
from mmseg.evaluation.semantic import check_same_settings
from mmseg.evaluation.tables import jsonable, text_table
from mmseg.registry import METRICS

FRAME_NAMES = ("S", "MAE", "adpF", "adpE")
SCORE_NAMES = ("S", "MAE", "maxF", "meanF", "adpF", "maxE", "meanE", "adpE")


class _Frames:
    """The frames of a video that count: the four numbers of each, and the sums of the two curves.

    Whether a frame is the last is known when the next one comes; until then it is held back.
    """

    def __init__(self) -> None:
        self.values: list[tuple[float, ...]] = []
        self.numbers: list[int] = []
        self.curves = np.zeros((2, 256))
        self.fed = 0
        self.number = -1  # of the frame fed last
        self.complete = False
        self.held: SaliencyScores | None = None

    def take(self, number: int, scores: SaliencyScores, all_frames: bool) -> None:
        """Count the frame before, unless it is the first and that is left out, and hold this one back."""
        if self.fed > 1 or (self.fed == 1 and all_frames):
            self._add(self.number, self.held)
        self.held, self.number, self.fed = scores, number, self.fed + 1

    def end(self, all_frames: bool) -> None:
        """Count the last frame if it is not left out."""
        if all_frames and self.held is not None:
            self._add(self.number, self.held)
        self.held, self.complete = None, True

    def _add(self, number: int, scores: SaliencyScores) -> None:
        self.numbers.append(number)
        self.values.append(tuple(getattr(scores, name) for name in FRAME_NAMES))
        self.curves += scores.F, scores.E


@METRICS.register_module()
class VideoSaliencyEvaluator:
    """Saliency of videos, fed frame by frame: means over the inner frames of a video, then over videos.

    Curves are averaged before their maximum (maxF, maxE) or mean (meanF, meanE) is taken.

    Args:
        toolkit: "pysodmetrics", or "vsod" for the numbers of the Matlab toolbox, see :func:`saliency_scores`. The
            toolbox divides the sum of a video's adpE by one frame too many; so does "vsod".
        all_frames: count the first and the last frame of each video, too.
        pooled: mean over all frames of all videos in one list.
        empty_blocks: S is nan where the toolkits divide by zero.
        truth_threshold: the object is where the truth is larger; 0 for masks of 0 and 1, or of ids.
        video_order: names of all videos in the order in which results come; a video without frames is an error.
    """

    in_percent = False

    def __init__(
        self,
        toolkit: Literal["pysodmetrics", "vsod"] = "pysodmetrics",
        all_frames: bool = False,
        pooled: bool = False,
        empty_blocks: bool = False,
        truth_threshold: int = TRUTH_THRESHOLD,
        video_order: Sequence[str] | None = None,
    ) -> None:
        self.toolkit, self.all_frames, self.pooled = toolkit, all_frames, pooled
        self.inner = not all_frames
        self.empty_blocks, self.truth_threshold = empty_blocks, truth_threshold
        self.video_order = None if video_order is None else list(video_order)
        self._known = None if video_order is None else set(video_order)
        self._frames: dict[str, _Frames] = {}

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Take the next frame of a video.

        Args:
            video: name of the video.
            frame: its number; frames come in ascending order.
            pred: (H, W) uint8 grey map, 255 is certainly object.
            target: (H, W) uint8 mask.

        Raises:
            DataError: the maps do not fit, the frame comes too late, or the truth has no value above the threshold but
                some below.
        """
        if self._known is not None and video not in self._known:
            raise DataError(f"video {video!r} is not in the split", "a video of the split", "check the names")
        pred, target = check_pair(video, frame, pred, target)
        frames = self._frames.get(video) or _Frames()
        if frame <= frames.number or frames.complete:
            raise DataError(
                f"frame {frame} of video {video!r} arrives late or twice",
                "the frames of a video once, in ascending order, before its end",
                "deal whole videos to processes, not single frames",
            )
        highest = int(target.max())
        if 0 < highest <= self.truth_threshold:
            raise DataError(
                f"truth of frame {frame} of video {video!r}: the largest value is {highest}",
                f"a mask of 0 and 255, the object being where it is more than {self.truth_threshold}",
                "give --truth-threshold 0 for masks of 0 and 1, or of object ids",
            )
        scores = saliency_scores(pred, target > self.truth_threshold, self.toolkit, self.empty_blocks)
        frames.take(frame, scores, self.all_frames)
        self._frames[video] = frames

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete.

        Raises:
            DataError: it has too few frames.
        """
        for name in [video] if video is not None else list(self._frames):
            frames = self._frames.get(name)
            if frames is None or frames.complete:
                continue
            if not self.all_frames and frames.fed < SHORTEST:
                raise DataError(
                    f"video {name!r}: {frames.fed} frames with a truth",
                    f"at least {SHORTEST}, since the first and the last do not count",
                    "leave the video out, or give --all-frames",
                )
            frames.end(self.all_frames)

    def frame_score(self, video: str) -> float:
        """S of the frame of `video` that was fed last."""
        return self._frames[video].held.S

    def frame_scores(self, video: str) -> FrameScores:
        """``S``, ``adpF``, ``adpE`` and ``MAE`` of every frame that counts."""
        own = self._frames[video]
        columns = dict(zip(FRAME_NAMES, zip(*own.values)))
        return FrameScores(own.numbers, {name: list(columns[name]) for name in ("S", "adpF", "adpE", "MAE")})

    def compute(self) -> dict[str, object]:
        """All numbers, as fractions in full precision.

        Returns:
            ``S, MAE, maxF, meanF, adpF, maxE, meanE, adpE``; ``per_sequence`` (name -> these and frames), ``counts``.

        Raises:
            DataError: a video of `video_order` got no frame, or one has too few.
        """
        self.end_video()
        missing = [name for name in self.video_order or () if name not in self._frames]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.video_order)} videos have no predictions: " + ", ".join(missing[:5]),
                "predictions for every video of the split",
                "predict them, or evaluate with a list that leaves them out",
            )
        frames = self.videos
        values = {name: self._video_means(own) for name, own in frames.items()}
        curves = {name: own.curves / max(len(own.values), 1) for name, own in frames.items()}
        repeats = {name: len(own.values) if self.pooled else 1 for name, own in frames.items()}
        flat = {
            name: mean([values[v][k] for v in frames for _ in range(repeats[v])]) for k, name in enumerate(FRAME_NAMES)
        }
        curve = sum((repeats[v] * curves[v] for v in frames), np.zeros((2, 256))) / max(sum(repeats.values()), 1)
        return {
            **_named(flat, curve),
            "per_sequence": {
                v: {**_named(dict(zip(FRAME_NAMES, values[v])), curves[v]), "frames": len(own.values)}
                for v, own in frames.items()
            },
            "counts": {"videos": len(frames), "frames": sum(len(own.values) for own in frames.values())},
        }

    def _video_means(self, frames: _Frames) -> list[float]:
        """Means of a video in the order of FRAME_NAMES; nan, where one frame is."""
        means = [float(np.mean(column)) for column in zip(*frames.values)]
        if self.toolkit == "vsod" and not self.pooled:
            means[-1] *= len(frames.values) / (len(frames.values) + 1)
        return means

    @property
    def videos(self) -> dict[str, _Frames]:
        """The videos fed so far, in the order of `video_order` if that is known."""
        order = self.video_order or list(self._frames)
        return {name: self._frames[name] for name in order if name in self._frames}

    @property
    def score_names(self) -> list[str]:
        """Names of the single numbers, see :meth:`scores`."""
        return list(SCORE_NAMES)

    def scores(self) -> dict[str, float]:
        """The single numbers by name."""
        found = self.compute()
        return {name: found[name] for name in SCORE_NAMES}

    def why_undefined(self, name: str) -> str:
        """In words, when the score of this name is undefined."""
        return "the object's centroid lies in the last row or column of a frame, where the toolkits divide by zero"

    def check_plausible(self) -> None:
        """Nothing that comes out can be told to be wrong."""

    def protocol(self) -> dict[str, object]:
        """The rules behind the numbers, in words."""
        return {
            "protocol": "video saliency (VSOD)",
            "equals": "the Matlab VSOD toolbox, its adpE included, up to its rounding"
            if self.toolkit == "vsod"
            else "pysodmetrics per frame, averaged as the VSOD toolbox does",
            "frames": "all" if self.all_frames else "the first and the last of each video left out",
            "average": "over all frames in one list" if self.pooled else "over the frames of a video, then over videos",
            "truth": f"object where the mask is more than {self.truth_threshold}",
            "S": "nan where the toolkits divide by zero" if self.empty_blocks else "empty quarters left out",
        }

    def report(self) -> dict[str, object]:
        """Everything as plain JSON values: ``protocol`` and the entries of :meth:`compute`."""
        return jsonable({"protocol": self.protocol(), **self.compute()})

    def tables(self) -> str:
        """Per sequence and over all, for people."""
        found, rules = self.compute(), self.protocol()
        rows = [
            [v, *(f"{row[n]:.4f}" for n in SCORE_NAMES), str(row["frames"])] for v, row in found["per_sequence"].items()
        ]
        counts = found["counts"]
        return "\n".join(
            [
                "per sequence:",
                text_table(["Sequence", *SCORE_NAMES, "frames"], rows),
                "",
                f"{rules['protocol']}: {counts['videos']} videos, {counts['frames']} frames ({rules['frames']}), "
                f"mean {rules['average']}",
                f"equals {rules['equals']}",
                text_table(SCORE_NAMES, [[f"{found[name]:.4f}" for name in SCORE_NAMES]]),
            ]
        )

    def merge(self, other: VideoSaliencyEvaluator) -> None:
        """Take over the videos of `other`.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a video was fed to both.
        """
        check_same_settings(self._settings(), other._settings())
        self.end_video()
        other.end_video()
        check_other_videos(self._frames, other._frames)
        self._frames.update(other._frames)

    def _settings(self) -> tuple[object, ...]:
        return self.toolkit, self.all_frames, self.pooled, self.empty_blocks, self.truth_threshold


def _named(flat: dict[str, float], curves: np.ndarray) -> dict[str, float]:
    """The eight numbers of four means and the mean curves of F and E."""
    found = dict(flat)
    for name, curve in zip("FE", curves):
        found[f"max{name}"], found[f"mean{name}"] = float(curve.max()), float(curve.mean())
    return {name: found[name] for name in SCORE_NAMES}
