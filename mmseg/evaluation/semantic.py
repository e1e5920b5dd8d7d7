"""mIoU, weighted IoU and accuracies from exact pixel counts, by both definitions in use.

The VSPW evaluation script averages over classes that occur in the truth; mmsegmentation also counts, as 0,
classes that are predicted but never occur. Both come from one table of counts.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation.frame_order import check_pair
from mmseg.evaluation.frame_scores import FrameScores
from mmseg.evaluation.histogram import joint_counts
from mmseg.registry import METRICS


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, Acc (= recall), Dice and Precision of each class, nan where 0/0.

    Args:
        confusion: (K, K) integers, pixels with truth a (row) and prediction b (column).

    Returns:
        name -> (K,) float64.
    """
    hit = confusion.diagonal()
    truth, guess = confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "IoU": _ratio(hit, truth + guess - hit),
        "Acc": _ratio(hit, truth),
        "Dice": _ratio(2 * hit, truth + guess),
        "Precision": _ratio(hit, guess),
    }


def vspw_scores(confusion: np.ndarray) -> dict[str, float]:
    """mIoU, FWIoU (the papers' WIoU), Acc and Acc_class as the VSPW script defines them.

    All averages run over the classes with labelled pixels. Without any labelled pixel they are nan, except
    FWIoU, which is an empty sum in the script: 0.0.

    Args:
        confusion: (K, K) integers, truth by prediction.
    """
    scores = class_scores(confusion)
    truth = confusion.sum(axis=1)
    present = truth > 0
    total = truth.sum()
    return {
        "mIoU": _mean(scores["IoU"][present]),
        "FWIoU": float((truth[present] / max(total, 1) * scores["IoU"][present]).sum()),
        "Acc": float(_ratio(confusion.trace(), total)),
        "Acc_class": _mean(scores["Acc"][present]),
    }


def mmseg_scores(confusion: np.ndarray) -> dict[str, float]:
    """mIoU, mDice, mAcc and aAcc as mmsegmentation defines them, before its rounding.

    A class that is predicted somewhere and never labelled counts with IoU 0 and Dice 0.

    Args:
        confusion: (K, K) integers, truth by prediction.
    """
    scores = class_scores(confusion)
    return {
        "mIoU": _mean(scores["IoU"]),
        "mDice": _mean(scores["Dice"]),
        "mAcc": _mean(scores["Acc"]),
        "aAcc": float(_ratio(confusion.trace(), confusion.sum())),
    }


def frame_miou(pred: np.ndarray, truth: np.ndarray, ignore_index: int = 255) -> float:
    """The mean IoU of one frame over the classes in its truth, nan if nothing is labelled.

    Args:
        pred, truth: (H, W) uint8, contiguous.
        ignore_index: label of pixels that do not count.
    """
    codes, counts = joint_counts(truth, pred)
    counted = codes >> 8 != ignore_index
    return _miou(codes[counted] >> 8, codes[counted] & 255, counts[counted])


def _miou(truth: np.ndarray, guess: np.ndarray, counts: np.ndarray) -> float:
    """The mean IoU over the classes in the truth, of pairs (truth, prediction) and how often each occurs."""
    labelled, predicted = np.bincount(truth, counts, 256), np.bincount(guess, counts, 256)
    same = truth == guess
    hit = np.bincount(truth[same], counts[same], 256)
    present = labelled > 0
    return _mean(hit[present] / (labelled + predicted - hit)[present])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0/0 is nan and means undefined
        return np.true_divide(numerator, denominator)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are defined; nan when none is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


@METRICS.register_module()
class SegmentationMetric:
    """Pixel counts of truth against prediction, kept per video.

    Frames may come in any order. Only the counts that are not zero are kept of a video that is not the
    current one, and number and mIoU of each frame, so memory grows by some kilobytes per video.

    Args:
        num_classes: K, at most 256.
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if not 1 <= num_classes <= 256:
            raise ConfigError(f"num_classes = {num_classes}", "1..256, label maps are uint8", "check the config")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._frames: dict[str, int] = {}  # bit t is set when frame t was counted
        self._counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # (indices, counts) of the flat (K, K) table
        self._current: tuple[str, np.ndarray] | None = None  # the one table that is kept dense
        self._frame_scores: dict[str, tuple[array, array]] = {}  # number and mIoU of each frame, as they came

    @property
    def videos(self) -> list[str]:
        """Names of the videos fed so far, in order of first sight."""
        return list(self._frames)

    def num_frames(self, video: str) -> int:
        """Number of frames of `video` counted so far."""
        return self._frames.get(video, 0).bit_count()

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Count one frame.

        Args:
            video: name of the video.
            frame: position of the frame in the video, from 0.
            pred: (H, W) class numbers 0..K-1.
            target: (H, W) class numbers 0..K-1 or `ignore_index` (reduced labels).

        Raises:
            DataError: the maps do not fit (:func:`check_pair`), hold a class >= K, or the frame was counted before.
        """
        pred, target = check_pair(video, frame, pred, target)
        frame = operator.index(frame)  # a NumPy integer would overflow below
        seen = self._frames.get(video, 0)
        if frame < 0 or seen >> frame & 1:
            raise DataError(
                f"frame {frame} of video {video!r} arrives a second time"
                if frame >= 0
                else f"frame {frame} of video {video!r}",
                "every frame of a video once, numbered from 0",
                "check the list of frames",
            )
        codes, counts = joint_counts(target, pred)
        truth, guess = codes >> 8, codes & 255
        self._check_range(video, frame, truth, guess)
        counted = truth != self.ignore_index
        truth, guess, counts = truth[counted], guess[counted], counts[counted]
        np.add.at(self._table(video), truth * self.num_classes + guess, counts)
        self._frames[video] = seen | 1 << frame
        numbers, scores = self._frame_scores.setdefault(video, (array("q"), array("d")))
        numbers.append(frame)
        scores.append(_miou(truth, guess, counts))

    def _check_range(self, video: str, frame: int, truth: np.ndarray, guess: np.ndarray) -> None:
        classes = f"0..{self.num_classes - 1}"
        if guess.max() >= self.num_classes:
            raise DataError(
                f"prediction of frame {frame} of video {video!r}: value {guess.max()}",
                f"class numbers {classes}",
                "store predictions as class numbers (not shifted by one, without an ignore label)",
            )
        wrong = truth[(truth >= self.num_classes) & (truth != self.ignore_index)]
        if wrong.size:
            raise DataError(
                f"label of frame {frame} of video {video!r}: value {wrong.max()}",
                f"class numbers {classes}, or {self.ignore_index} for pixels to ignore",
                "check num_classes and whether the labels have to be reduced by one",
            )

    def _table(self, video: str) -> np.ndarray:
        """The flat (K * K) table of `video`, which becomes the current video."""
        if self._current is None or self._current[0] != video:
            self.end_video()
            table = np.zeros(self.num_classes**2, dtype=np.int64)
            if video in self._counts:
                index, counts = self._counts[video]
                table[index] = counts
            self._current = (video, table)
        return self._current[1]

    def confusion(self, videos: Iterable[str] | None = None) -> np.ndarray:
        """(K, K) int64 pixel counts, truth by prediction, summed over `videos` (default: all)."""
        self.end_video()
        total = np.zeros(self.num_classes**2, dtype=np.int64)
        for video in self._frames if videos is None else videos:
            if video in self._counts:
                index, counts = self._counts[video]
                total[index] += counts
        return total.reshape(self.num_classes, self.num_classes)

    def frame_score(self, video: str) -> float:
        """The mIoU of the frame of `video` that was fed last."""
        return self._frame_scores[video][1][-1]

    def frame_scores(self, video: str) -> FrameScores:
        """The mIoU of every frame of `video` over the classes in its truth; nan where nothing is labelled."""
        numbers, scores = (np.array(values) for values in self._frame_scores[video])
        order = numbers.argsort()
        return FrameScores(numbers[order].tolist(), {"mIoU": scores[order].tolist()})

    def compute(self) -> dict[str, object]:
        """Scores over all frames fed, as fractions.

        Returns:
            ``mIoU, FWIoU, Acc, Acc_class`` (:func:`vspw_scores`), ``mmseg/mIoU, mmseg/mDice, mmseg/mAcc,
            mmseg/aAcc`` (:func:`mmseg_scores`), ``IoU, class_acc, Dice, Precision`` as lists per class,
            ``video_mIoU`` (name -> mIoU by the first definition), ``videos`` and ``frames`` (how many).
        """
        confusion = self.confusion()
        per_class = {name: values.tolist() for name, values in class_scores(confusion).items()}
        per_class["class_acc"] = per_class.pop("Acc")  # Acc is the pixel accuracy
        return {
            **vspw_scores(confusion),
            **{f"mmseg/{name}": value for name, value in mmseg_scores(confusion).items()},
            **per_class,
            "video_mIoU": {v: vspw_scores(self.confusion([v]))["mIoU"] for v in self._frames},
            "videos": len(self._frames),
            "frames": sum(map(self.num_frames, self._frames)),
        }

    def end_video(self, video: str | None = None) -> None:
        """Put a video (None: the current one) away in the small form; its frames may still go on."""
        if self._current is not None and video in (None, self._current[0]):
            video, table = self._current
            index = np.flatnonzero(table)
            self._counts[video] = (index, table[index])
            self._current = None

    def merge(self, other: SegmentationMetric) -> None:
        """Add the counts of `other`, which may hold other frames of the same videos.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a frame was counted by both.
        """
        ours, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        check_same_settings(ours, theirs)
        for video, frames in other._frames.items():
            if self._frames.get(video, 0) & frames:
                raise DataError(
                    f"frames of video {video!r} were counted by two processes",
                    "every frame counted once",
                    "deal whole videos to processes, each to one",
                )
        other.end_video()
        for video, frames in other._frames.items():
            index, counts = other._counts[video]
            self._table(video)[index] += counts
            self._frames[video] = self._frames.get(video, 0) | frames
            for ours, theirs in zip(
                self._frame_scores.setdefault(video, (array("q"), array("d"))), other._frame_scores[video]
            ):
                ours.extend(theirs)


def check_same_settings(ours: Sequence[object], theirs: Sequence[object]) -> None:
    """Raise ConfigError when two accumulators that are to be merged were made with different settings."""
    if tuple(ours) != tuple(theirs):
        raise ConfigError(
            f"metrics with settings {tuple(theirs)} are merged into metrics with {tuple(ours)}",
            "the same settings in all processes",
            "make them with the same arguments",
        )
