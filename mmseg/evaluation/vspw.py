"""All numbers of a VSPW evaluation from one pass over the frames.

The papers' mIoU, WIoU, mVC8 and mVC16 are those of ``VC_perclip.py``: over the videos of more than 16 frames, classes
that occur in the truth. mmsegmentation's own mIoU, which training logs show, is given beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge

from mmseg.errors import ConfigError, DataError, nearest
from mmseg.evaluation.consistency import VideoConsistency
from mmseg.evaluation.frame_order import check_pair
from mmseg.evaluation.frame_scores import FrameScores
from mmseg.evaluation.semantic import SegmentationMetric, class_scores, mmseg_scores, vspw_scores
from mmseg.evaluation.tables import jsonable, percent, text_table
from mmseg.registry import METRICS
from mmseg.values import Fraction, PositiveInt

METRIC_NAMES = ("mIoU", "mDice")
_PER_CLASS = ("IoU", "Acc", "Dice")


def check_metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """`names` as a tuple. Raises ConfigError for one that is not in :data:`METRIC_NAMES`."""
    for name in names:
        if name not in METRIC_NAMES:
            raise ConfigError(f"metric {name!r}", " or ".join(METRIC_NAMES), nearest(name, METRIC_NAMES))
    return tuple(names)


@METRICS.register_module()
class VSPWEvaluator:
    """mIoU, weighted IoU, accuracies, VC8 and VC16 of a video data set, fed frame by frame.

    Args:
        num_classes: K.
        class_names: K names for the tables; default ``class 0``, ``class 1``, ...
        ignore_index: label of pixels that do not count for the class scores.
        video_order: names of all videos in the order of the split file; results come in this order, and a video
            without frames is an error. None: the videos fed, in order of first sight.
        lengths, min_frames, all_windows, ignore_void: see :class:`VideoConsistency`. `min_frames` decides
            about the class scores of VC_perclip as well.
        good_threshold: videos of higher mIoU are listed as good.
        metrics: of :data:`METRIC_NAMES`: what :meth:`mmseg_evaluate` and the table per class give.
        gaps: see :class:`VideoConsistency`; `min_frames` counts the frames that are fed.
    """

    in_percent = True

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        video_order: Sequence[str] | None = None,
        lengths: Sequence[Annotated[int, Ge(2)]] = (8, 16),
        min_frames: PositiveInt | None = None,
        all_windows: bool = False,
        ignore_void: bool = False,
        good_threshold: Fraction = 0.8,
        metrics: Sequence[str] = ("mIoU",),
        gaps: bool = False,
    ) -> None:
        if class_names is not None and len(class_names) != num_classes:
            raise ConfigError(
                f"{len(class_names)} class names", f"one for each of {num_classes} classes", "check the data set"
            )
        self.class_names = list(class_names or [f"class {c}" for c in range(num_classes)])
        self.video_order = None if video_order is None else list(video_order)
        self._known = None if video_order is None else set(video_order)
        self.good_threshold = good_threshold
        self.metrics = check_metric_names(metrics)
        self.segmentation = SegmentationMetric(num_classes, ignore_index)
        self.consistency = VideoConsistency(
            lengths, min_frames, all_windows, ignore_void, ignore_index, video_order=video_order, gaps=gaps
        )

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Take the next frame of a video.

        Args:
            video: name of the video.
            frame: its position, 0, 1, 2, ...
            pred: (H, W) class numbers 0..K-1, of the size of the label.
            target: (H, W) reduced labels: 0..K-1 or `ignore_index`.

        Raises:
            DataError: the maps do not fit, hold a class >= K, the frame is not the next one of its video, or the
                video is not one of `video_order`. Nothing is counted then.
        """
        if self._known is not None and video not in self._known:
            raise DataError(f"video {video!r} is not in the split", "a video of the split file", "check the names")
        pred, target = check_pair(video, frame, pred, target)
        self.consistency.check_next(video, frame, pred)
        self.segmentation.update(video, frame, pred, target)
        self.consistency.update(video, frame, pred, target)

    def compute(self) -> dict[str, object]:
        """All scores, as fractions in full precision.

        Returns:
            ``mIoU, FWIoU, Acc, Acc_class, VC8, VC16``: as VC_perclip.py; ``mmseg/mIoU``, ``/mDice``, ``/mAcc``,
            ``/aAcc``: all videos, as mmsegmentation; ``all_videos/mIoU``, ``/FWIoU``: all videos, as VC_perclip;
            ``per_class`` (a row for each class: class, IoU, Acc, Dice, pixels; all videos), ``per_video``
            (name -> frames, counted, mIoU, VC8, VC16), ``good_videos``, ``skipped_videos``, ``counts``.

        Raises:
            DataError: a video of `video_order` got no frame.
        """
        self._check_complete()
        consistency = self.consistency.compute()
        num_frames = self.consistency.num_frames
        skipped = set(consistency["skipped"])
        counted = [v for v in num_frames if v not in skipped]
        everything = self.segmentation.confusion()
        every_video = vspw_scores(everything)
        per_video = {v: self._video_row(v, num_frames[v], v not in skipped, consistency) for v in num_frames}
        return {
            **vspw_scores(self.segmentation.confusion(counted)),
            **{name: consistency[name] for name in self._vc_names()},
            **{f"mmseg/{name}": value for name, value in mmseg_scores(everything).items()},
            **{f"all_videos/{name}": every_video[name] for name in ("mIoU", "FWIoU")},
            "per_class": self._class_rows(everything),
            "per_video": per_video,
            "good_videos": [v for v in counted if per_video[v]["mIoU"] > self.good_threshold],
            "skipped_videos": consistency["skipped"],
            "counts": {
                "videos": len(num_frames),
                "frames": sum(num_frames.values()),
                "videos_counted": consistency["videos"],
                "frames_counted": consistency["frames"],
                "windows": consistency["windows"],
                "labelled_pixels": int(everything.sum()),
            },
        }

    def frame_score(self, video: str) -> float:
        """The mIoU of the frame of `video` that was fed last."""
        return self.segmentation.frame_score(video)

    def frame_scores(self, video: str) -> FrameScores:
        """``mIoU`` of every frame, and ``VC<C>`` of the window that ends there where no frames are left out."""
        found = self.segmentation.frame_scores(video)
        if self.consistency.has_gaps:
            return found
        curves, number = dict(found.curves), len(found.numbers)
        for length, windows in self.consistency.windows(video).items():
            values = np.full(number, np.nan)
            values[length - 1 : length - 1 + len(windows)] = windows
            curves[f"VC{length}"] = values.tolist()
        return FrameScores(found.numbers, curves)

    def confusion(self) -> np.ndarray:
        """(K, K) int64: pixels of a class (row) that are predicted as another (column), in all frames of all videos."""
        return self.segmentation.confusion()

    def check_plausible(self) -> None:
        """Raise DataError if nothing is labelled, or nearly everything is off by one class."""
        confusion = self.segmentation.confusion()
        total = int(confusion.sum())
        if total == 0:
            raise DataError(
                "not a single labelled pixel in all frames, so that there is nothing to score",
                "masks with classes (in masks to be reduced, 0 and 255 are void and the first class is 1)",
                "check the masks; if 0 is the first class, give --no-reduce-zero-label or set reduce_zero_label=False "
                "in the data set",
            )
        for shift, neighbour, advice in (
            (
                1,
                "next",
                "give --no-reduce-zero-label (reduce_zero_label=False) if 0 is a class in the masks",
            ),
            (-1, "previous", "leave reduction on (reduce_zero_label=True) if 0 is void in the masks"),
        ):
            off = confusion.diagonal(shift)
            best = confusion.argmax(axis=1)
            rows = np.flatnonzero(confusion.any(axis=1) & (best == np.arange(len(best)) + shift))
            if len(rows) > 1 and 2 * off.sum() > total and 10 * confusion.trace() < total:
                raise DataError(
                    f"{percent(off.sum() / total)} % of the labelled pixels are predicted as the {neighbour} class, "
                    f"{percent(confusion.trace() / total)} % as their own",
                    "masks and predictions that count the classes alike",
                    f"{advice}, or store predictions that are not shifted by one",
                )

    def _check_complete(self) -> None:
        missing = [v for v in self.video_order or () if v not in self.consistency.num_frames]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.video_order)} videos of the split have no predictions: "
                + ", ".join(missing[:5]),
                "predictions for every video of the split",
                "predict them, or evaluate with a split file that leaves them out",
            )

    def _vc_names(self) -> list[str]:
        return [f"VC{length}" for length in self.consistency.lengths]

    def _video_row(self, video: str, frames: int, counted: bool, consistency: dict) -> dict[str, object]:
        row = {"frames": frames, "counted": counted, "mIoU": vspw_scores(self.segmentation.confusion([video]))["mIoU"]}
        return {**row, **{name: consistency[f"video_{name}"].get(video, float("nan")) for name in self._vc_names()}}

    def _class_rows(self, confusion: np.ndarray) -> list[dict[str, object]]:
        scores = class_scores(confusion)
        pixels = confusion.sum(axis=1)
        return [
            {"class": name, **{k: float(scores[k][c]) for k in _PER_CLASS}, "pixels": int(pixels[c])}
            for c, name in enumerate(self.class_names)
        ]

    def mmseg_evaluate(self, metrics: Sequence[str] | None = None) -> dict[str, float]:
        """What mmsegmentation's ``dataset.evaluate`` returns: round(100 x, 2) / 100 of `metrics`, mAcc and aAcc.

        Args:
            metrics: of :data:`METRIC_NAMES`; default: those of the evaluator.

        Raises:
            ConfigError: another metric.
        """
        names = self.metrics if metrics is None else check_metric_names(metrics)
        scores = mmseg_scores(self.segmentation.confusion())
        return {name: float(np.round(100 * scores[name], 2)) / 100 for name in (*names, "mAcc", "aAcc")}

    @property
    def score_names(self) -> list[str]:
        """Names of the single numbers, see :meth:`scores`."""
        return [
            *("mIoU", "FWIoU", "Acc", "Acc_class", *self._vc_names()),
            *(f"mmseg/{name}" for name in ("mIoU", "mDice", "mAcc", "aAcc")),
            *(f"all_videos/{name}" for name in ("mIoU", "FWIoU")),
            *(f"{kind}.{name}" for kind in _PER_CLASS for name in self.class_names),
        ]

    def why_undefined(self, name: str) -> str:
        """In words, when the score of this name is undefined."""
        if "." in name:
            return "no pixel is labelled, or predicted, as this class"
        if "/" in name:
            return "no pixel is labelled"
        return f"it counts videos of at least {self.consistency.min_frames} frames" + (
            " with masks, and VC windows of frames that all have them" if self.consistency.has_gaps else ""
        )

    def scores(self) -> dict[str, float]:
        """All single numbers by name: those of :meth:`compute`, and ``IoU.<class>, Acc.<class>, Dice.<class>``."""
        found = self.compute()
        for row in found["per_class"]:
            found.update({f"{kind}.{row['class']}": row[kind] for kind in _PER_CLASS})
        return {name: found[name] for name in self.score_names}

    def protocol(self) -> dict[str, object]:
        """The rules behind the numbers, in words."""
        vc = self.consistency
        windows = "all T-C+1" if vc.all_windows else "the first T-C (the last one is left out, as published)"
        return {
            "mIoU, FWIoU, Acc, Acc_class, VC": f"VC_perclip: videos of at least {vc.min_frames} frames",
            "classes": "those with labelled pixels; mmseg/*: also those that are only predicted",
            "windows": f"{windows} of each video, mean over all windows of all videos",
            "ignored pixels in VC": "left out" if vc.ignore_void else "a label like any other, as published",
            "mmseg/*, all_videos/*, per class": "all frames of all videos",
            "num_classes": self.segmentation.num_classes,
            "ignore_index": self.segmentation.ignore_index,
            "good videos": f"mIoU > {self.good_threshold}",
        }

    def report(self) -> dict[str, object]:
        """Everything as plain JSON values: ``protocol``, the entries of :meth:`compute`, ``mmseg_evaluate`` and
        ``confusion_matrix`` (:meth:`confusion`)."""
        parts = {"mmseg_evaluate": self.mmseg_evaluate(), "confusion_matrix": self.confusion()}
        return jsonable({"protocol": self.protocol(), **self.compute(), **parts})

    def tables(self) -> str:
        """Per-class table and summary for people, in percent."""
        scores = self.compute()
        columns = [*(name.removeprefix("m") for name in self.metrics), "Acc"]
        classes = [[row["class"], *(percent(row[column]) for column in columns)] for row in scores["per_class"]]
        names = ["mIoU", "FWIoU", *self._vc_names(), "Acc", "Acc_class"]
        mmseg = ["mIoU", "mDice", "mAcc", "aAcc"]
        counts = scores["counts"]
        skipped = scores["skipped_videos"]
        lines = [
            "per class, all frames:",
            text_table(["Class", *columns], classes),
            "",
            f"VC_perclip: {counts['videos_counted']} of {counts['videos']} videos, "
            f"{counts['frames_counted']} of {counts['frames']} frames:",
            text_table(["Scope", *names], [["VC_perclip", *(percent(scores[n]) for n in names)]]),
            "",
            "mmsegmentation, all frames (also counts classes that are only predicted):",
            text_table(["Scope", *mmseg], [["global", *(percent(scores[f"mmseg/{n}"]) for n in mmseg)]]),
            "",
            f"mIoU : {scores['all_videos/mIoU']}",
            f"FWIoU : {scores['all_videos/FWIoU']}",
        ]
        if skipped:
            lines.append(
                f"{len(skipped)} videos of fewer than {self.consistency.min_frames} frames"
                f"{' with masks' if self.consistency.has_gaps else ''} do not count for VC_perclip: "
                + ", ".join(skipped[:5])
                + (", ..." if len(skipped) > 5 else "")
            )
        return "\n".join(lines)

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete: drop what was kept for its next frames."""
        self.consistency.end_video(video)
        self.segmentation.end_video(video)

    def merge(self, other: VSPWEvaluator) -> None:
        """Take over the videos of `other`; the numbers do not depend on how videos were dealt to evaluators.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a video was fed to both.
        """
        self.consistency.merge(other.consistency)
        self.segmentation.merge(other.segmentation)
