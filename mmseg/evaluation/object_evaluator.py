"""What the evaluators of object masks share: frames of whole videos in, J and F of each object out, tables, reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmseg.errors import ConfigError, DataError
from mmseg.evaluation.frame_order import check_other_videos, check_pair
from mmseg.evaluation.frame_scores import FrameScores
from mmseg.evaluation.frame_statistics import frame_statistics
from mmseg.evaluation.object_scores import ObjectMasks
from mmseg.evaluation.semantic import check_same_settings
from mmseg.evaluation.tables import jsonable, percent, text_table

GLOBAL_NAMES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SHORTEST = 3
"""Frames of the shortest video of which the first and the last can be left out."""


@dataclass
class ObjectVideo:
    """The scores of one video.

    Attributes:
        frames: numbers of the frames that count.
        ids: of the objects.
        region, boundary: (objects, frames) float64, J and F; nan where an object does not count yet.
        matches: object -> proposal it was matched with, where there are proposals; 0 for an empty one.
    """

    frames: list[int]
    ids: tuple[int, ...]
    region: np.ndarray
    boundary: np.ndarray
    matches: dict[int, int] = field(default_factory=dict)


class ObjectEvaluator:
    """Base of the evaluators of object masks: one frame at a time in, per-frame scores of whole videos kept.

    A sub-class says what the objects of a video are and what a frame scores: :meth:`_begin`, :meth:`_score`,
    :meth:`_close`.

    Args:
        video_order: names of all videos in the order in which results come; a video without frames is an error. None:
            the videos fed, in order of first sight.
    """

    protocol_name = ""
    equals = ""  # whose numbers these are
    in_percent = True
    inner = True  # whether the first and the last frame of a video are left out

    def __init__(self, video_order: Sequence[str] | None = None) -> None:
        self.video_order = None if video_order is None else list(video_order)
        self._known = None if video_order is None else set(video_order)
        self._masks = ObjectMasks()
        self._open: dict[str, dict] = {}  # videos that are being fed
        self._videos: dict[str, ObjectVideo] = {}

    def update(self, video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> None:
        """Take the next frame of a video that has a truth.

        Args:
            video: name of the video.
            frame: its number; frames come in ascending order, and some may be missing.
            pred, target: (H, W) uint8 object ids, 0 is background.

        Raises:
            DataError: the maps do not fit, the frame does not come after the one before, the video is complete or not
                one of `video_order`, or the prediction holds what the protocol does not allow.
        """
        if self._known is not None and video not in self._known:
            raise DataError(f"video {video!r} is not in the split", "a video of the split", "check the names")
        pred, target = check_pair(video, frame, pred, target)
        state = self._open.get(video)
        if video in self._videos or (state is not None and frame <= state["frames"][-1]):
            raise DataError(
                f"frame {frame} of video {video!r} arrives "
                + ("after the end of its video" if state is None else f"after frame {state['frames'][-1]}"),
                "the frames of a video once, in ascending order, before its end",
                "deal whole videos to processes, not single frames",
            )
        if state is None:
            state = self._open[video] = {"name": video, "frames": [], "rows": []}
            self._begin(state, target)
        first = not state["frames"]
        state["frames"].append(frame)
        state["rows"].append(None if first and self.inner else self._score(state, frame, pred, target))

    def _begin(self, state: dict, target: np.ndarray) -> None:
        """The first frame of a video: say in `state` what its objects are."""

    def _score(self, state: dict, frame: int, pred: np.ndarray, target: np.ndarray) -> object:
        """What a frame adds to the rows of `state`."""
        raise NotImplementedError

    def _close(self, state: dict, frames: list[int], rows: list) -> ObjectVideo:
        """The scores of a video, of the frames that count and their rows; here a row is J and F, (K,) each."""
        ids = state["ids"]
        scores = np.array(rows, dtype=np.float64).reshape(len(rows), 2, len(ids))
        return ObjectVideo(frames, tuple(ids), scores[:, 0].T, scores[:, 1].T)

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete.

        Raises:
            DataError: it has too few frames.
        """
        for name in [video] if video is not None else list(self._open):
            if name not in self._open:
                continue
            state = self._open.pop(name)
            inside = slice(1, -1) if self.inner else slice(None)
            if self.inner and len(state["frames"]) < SHORTEST:
                raise DataError(
                    f"video {name!r}: {len(state['frames'])} frames with a truth",
                    f"at least {SHORTEST}, since the first and the last do not count",
                    "leave the video out, or take a protocol that counts all frames",
                )
            self._videos[name] = self._close(state, state["frames"][inside], state["rows"][inside])

    def frame_score(self, video: str) -> float:
        """J&F of the frame of `video` that was fed last, the mean over its objects; nan if none counts there."""
        row = self._open[video]["rows"][-1]
        return float("nan") if row is None else self._row_score(row)

    def _row_score(self, row: object) -> float:
        """J&F of a row, if that is known before the video is complete, else nan; here of J and F, (K,) each."""
        return mean((np.asarray(row).sum(axis=0) / 2).tolist())

    def frame_scores(self, video: str) -> FrameScores:
        """``J&F``, ``J`` and ``F`` of every frame that counts, means over the objects; and J&F of each of several."""
        own = self._videos[video]
        both = (own.region + own.boundary) / 2
        curves = {
            name: [mean(column) for column in values.T.tolist()] if own.ids else [float("nan")] * len(own.frames)
            for name, values in (("J&F", both), ("J", own.region), ("F", own.boundary))
        }
        if len(own.ids) > 1:
            curves |= {f"object {number}": values.tolist() for number, values in zip(own.ids, both)}
        return FrameScores(own.frames, curves)

    @property
    def videos(self) -> dict[str, ObjectVideo]:
        """Scores of all complete videos by name, in the order of `video_order` if that is known."""
        order = self.video_order or list(self._videos)
        return {name: self._videos[name] for name in order if name in self._videos}

    def object_name(self, video: str, number: int) -> str:
        """What an object is called in tables."""
        return f"{video}_{number}"

    def per_object(self) -> dict[str, dict[str, dict[str, float]]]:
        """``<video>_<id>`` -> ``J`` and ``F`` -> ``mean``, ``recall``, ``decay`` over the frames that count."""
        self.end_video()
        rows = {}
        for name, video in self.videos.items():
            for number, region, boundary in zip(video.ids, video.region, video.boundary):
                rows[self.object_name(name, number)] = {
                    measure: frame_statistics(values[~np.isnan(values)])
                    for measure, values in (("J", region), ("F", boundary))
                }
        return rows

    def compute(self) -> dict[str, object]:
        """All numbers, as fractions in full precision.

        Returns:
            ``J&F-Mean``, ``J-Mean``, ``J-Recall``, ``J-Decay``, ``F-Mean`` ...: over all objects of all videos;
            ``per_object``; ``per_sequence`` (name -> means over its objects, frames and objects), ``counts``.

        Raises:
            DataError: a video of `video_order` got no frame, or one has too few.
        """
        objects = self.per_object()
        self._check_complete()
        found: dict[str, object] = {}
        for measure in "JF":
            for statistic in ("mean", "recall", "decay"):
                values = [row[measure][statistic] for row in objects.values()]
                found[f"{measure}-{statistic.title()}"] = mean(values)
        found["J&F-Mean"] = (found["J-Mean"] + found["F-Mean"]) / 2
        return {
            **{name: found[name] for name in GLOBAL_NAMES},
            "per_object": objects,
            "per_sequence": self._per_sequence(objects),
            "counts": self._counts(),
        }

    def _per_sequence(self, objects: dict) -> dict[str, dict[str, float]]:
        rows = {}
        for name, video in self.videos.items():
            own = [objects[self.object_name(name, number)] for number in video.ids]
            j, f = (mean([row[measure]["mean"] for row in own]) for measure in "JF")
            rows[name] = {
                "J&F-Mean": (j + f) / 2,
                "J-Mean": j,
                "F-Mean": f,
                "frames": len(video.frames),
                "objects": len(video.ids),
            }
        return rows

    def _counts(self) -> dict[str, int]:
        videos = self.videos.values()
        return {
            "videos": len(videos),
            "frames": sum(len(video.frames) for video in videos),
            "objects": sum(len(video.ids) for video in videos),
        }

    def _check_complete(self) -> None:
        missing = [name for name in self.video_order or () if name not in self._videos]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.video_order)} videos have no predictions: " + ", ".join(missing[:5]),
                "predictions for every video of the split",
                "predict them, or evaluate with a list that leaves them out",
            )

    @property
    def score_names(self) -> list[str]:
        """Names of the single numbers, see :meth:`scores`."""
        return list(GLOBAL_NAMES)

    def scores(self) -> dict[str, float]:
        """The single numbers by name."""
        found = self.compute()
        return {name: found[name] for name in self.score_names}

    def why_undefined(self, name: str) -> str:
        """In words, when the score of this name is undefined."""
        return "the truth shows no object; 255 is void, save for DAVIS-2016"

    def check_plausible(self) -> None:
        """Raise DataError if no video shows an object."""
        self.end_video()
        if not any(video.ids for video in self._videos.values()):
            raise DataError(
                f"no object in the truth of {len(self._videos)} videos",
                "ids 1, 2, ... in the first mask of each video (255 is void here)",
                "masks of 0 and 255 are DAVIS-2016's: take --protocol davis16",
            )

    def protocol(self) -> dict[str, object]:
        """The rules behind the numbers, in words."""
        return {
            "protocol": self.protocol_name,
            "equals": self.equals,
            "frames": "the first and the last of each video left out" if self.inner else "all",
        }

    def report(self) -> dict[str, object]:
        """Everything as plain JSON values: ``protocol``, the entries of :meth:`compute`, ``per_frame``."""
        found = self.compute()
        per_frame = {
            name: {
                "frames": video.frames,
                **{
                    self.object_name(name, number): {"J": region, "F": boundary}
                    for number, region, boundary in zip(video.ids, video.region, video.boundary)
                },
            }
            for name, video in self.videos.items()
        }
        return jsonable({"protocol": self.protocol(), **found, "per_frame": per_frame})

    def tables(self) -> str:
        """Per object, per sequence and over all, for people, in percent."""
        found = self.compute()
        counts = found["counts"]
        sequences = [
            [name, *(percent(row[column]) for column in GLOBAL_NAMES if column in row), str(row["frames"])]
            for name, row in found["per_sequence"].items()
        ]
        objects = [
            [name, *(percent(row[m][s]) for m in "JF" for s in ("mean", "recall", "decay"))]
            for name, row in found["per_object"].items()
        ]
        parts = ["per sequence:", text_table(["Sequence", "J&F-Mean", "J-Mean", "F-Mean", "frames"], sequences)]
        if counts["objects"] != counts["videos"]:
            parts += ["", "per object:", text_table(["Object", *GLOBAL_NAMES[1:]], objects)]
        return "\n".join([*parts, "", self._summary(found)])

    def _summary(self, found: dict) -> str:
        counts = found["counts"]
        frames = ", first and last frames left out" if self.inner else ""
        return "\n".join(
            [
                f"{self.protocol_name}: {counts['videos']} videos, {counts['frames']} frames, "
                f"{counts['objects']} objects{frames}",
                f"equals {self.equals}",
                text_table(self._column_names(), [[percent(found[name]) for name in self.score_names]]),
            ]
        )

    def _column_names(self) -> list[str]:
        return self.score_names

    def merge(self, other: ObjectEvaluator) -> None:
        """Take over the videos of `other`; the numbers do not depend on how videos were dealt to evaluators.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a video was fed to both.
        """
        if type(other) is not type(self):
            raise ConfigError(f"{type(other).__name__} merged into {type(self).__name__}", "one kind", "fix the call")
        check_same_settings(self._settings(), other._settings())
        self.end_video()
        other.end_video()
        check_other_videos(self._videos, other._videos)
        self._videos.update(other._videos)

    def _settings(self) -> tuple[object, ...]:
        return (self.inner,)


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are defined, rounded once, so that their order leaves no trace; nan without any."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else float("nan")
