"""What every accumulator asks of its input: two label maps that fit, and the frames of a video in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mmseg.errors import DataError

MAX_OPEN_VIDEOS = 32
"""Videos that may be in progress at once; each open video costs an accumulator a few bytes per pixel."""


def check_label_map(labels: np.ndarray, what: str, video: str, frame: int) -> np.ndarray:
    """`labels` as a contiguous (H, W) uint8 array.

    Args:
        labels: (H, W), any integer type with values 0..255.
        what: "prediction" or "label", for the message.
        video, frame: where the map belongs, for the message.

    Raises:
        DataError: not two-dimensional, empty, not of an integer type, or a value outside 0..255.
    """
    labels = np.asarray(labels)
    place = f"{what} of frame {frame} of video {video!r}"
    if labels.ndim != 2 or labels.size == 0:
        raise DataError(
            f"{place}: shape {labels.shape}",
            "a label map (H, W), one class number per pixel",
            "a colour picture has to be turned into class numbers first",
        )
    if labels.dtype == np.uint8:
        return np.ascontiguousarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{place}: dtype {labels.dtype}", "an integer type", "pass class numbers, as uint8")
    if labels.min() < 0 or labels.max() > 255:
        raise DataError(
            f"{place}: values {labels.min()}..{labels.max()}", "values 0..255", "pass class numbers, as uint8"
        )
    return np.ascontiguousarray(labels, dtype=np.uint8)


def check_pair(video: str, frame: int, pred: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and label of one frame as (H, W) uint8 arrays of the same size.

    Raises:
        DataError: one of them is no label map (:func:`check_label_map`), or their sizes differ.
    """
    pred = check_label_map(pred, "prediction", video, frame)
    target = check_label_map(target, "label", video, frame)
    if pred.shape != target.shape:
        raise DataError(
            f"frame {frame} of video {video!r}: prediction is {_size(pred)}, label is {_size(target)}",
            "both of the size of the frame",
            "resize the prediction to the original frame size before it is stored",
        )
    return pred, target


def _size(labels: np.ndarray) -> str:
    return f"{labels.shape[0]}x{labels.shape[1]} (height x width)"


def check_same_size(video: str, frame: int, labels: np.ndarray, previous: np.ndarray) -> None:
    """Raise DataError when the frames of one video differ in size."""
    if labels.shape != previous.shape:
        raise DataError(
            f"frame {frame} of video {video!r} is {_size(labels)}, the frame before is {_size(previous)}",
            "all frames of a video of one size",
            "check the files of this video",
        )


class FrameOrder:
    """Sees to it that frames come as 0, 1, 2, ... and keeps what is needed between two frames of a video.

    With `gaps`, numbers may be left out (frames without truth); nothing is kept over a gap.

    Videos may be fed in turn; at most `limit` of them are in progress, so that memory stays bounded also where
    nobody says when a video ends: the state of the one that rested longest is dropped.
    """

    def __init__(self, limit: int = MAX_OPEN_VIDEOS, gaps: bool = False) -> None:
        self.limit, self.gaps = limit, gaps
        self.num_frames: dict[str, int] = {}  # in order of first sight
        self._due: dict[str, int] = {}  # the number that follows that of the last frame
        self._open: dict[str, Any] = {}  # least recently fed first

    def check(self, video: str, frame: int) -> None:
        """Raise DataError unless `frame` is the next one of `video`."""
        due = self._due.get(video, 0)
        if frame < due or (frame > due and not self.gaps):
            fault = "arrives a second time" if 0 <= frame < due else f"arrives when frame {due} is due"
            raise DataError(
                f"frame {frame} of video {video!r} {fault}",
                "every frame of a video once and in order, 0, 1, 2, ...",
                "feed the videos frame by frame; deal whole videos to processes, not single frames",
            )
        if due and video not in self._open:
            raise DataError(
                f"frame {frame} of video {video!r} arrives after the video was taken as finished",
                f"at most {self.limit} videos in progress, and none continued after end_video() or merge()",
                "feed one video after the other",
            )
        if due and frame > due:
            self._open[video] = None

    def state(self, video: str) -> Any:
        """What :meth:`advance` kept after the frame before; None at the first frame, and after a gap."""
        return self._open.get(video)

    def advance(self, video: str, state: Any, frame: int) -> None:
        """Count `frame` of `video` and keep `state` for the next one."""
        self.num_frames[video] = self.num_frames.get(video, 0) + 1
        self._due[video] = frame + 1
        self._open.pop(video, None)
        self._open[video] = state
        if len(self._open) > self.limit:
            del self._open[next(iter(self._open))]

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete: drop what was kept for its next frame."""
        if video is None:
            self._open.clear()
        else:
            self._open.pop(video, None)

    def merge(self, other: FrameOrder) -> None:
        """Take over the videos of `other`; all videos count as finished afterwards.

        Raises:
            DataError: a video was fed to both.
        """
        check_other_videos(self.num_frames, other.num_frames)
        self.end_video()
        self.num_frames.update(other.num_frames)
        self._due.update(other._due)


def check_other_videos(ours: Iterable[str], theirs: Iterable[str]) -> None:
    """Raise DataError for a video that both of two accumulators were fed with, which are to be merged."""
    twice = sorted(set(ours) & set(theirs))
    if twice:
        raise DataError(
            f"video {twice[0]!r} was evaluated by two processes"
            + (f" ({len(twice)} such videos)" if len(twice) > 1 else ""),
            "every video evaluated once",
            "deal whole videos to processes, each to one",
        )
