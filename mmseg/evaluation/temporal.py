"""Temporal consistency TC: does the prediction follow the optical flow?

TC is the mIoU between the prediction of frame t, taken as truth, and the prediction of frame t + 1 warped back
to t. The flow is given as arrays; no flow network is part of this.
"""

from __future__ import annotations

import numpy as np

from mmseg.errors import DataError
from mmseg.evaluation.frame_order import FrameOrder, check_label_map, check_same_size
from mmseg.evaluation.semantic import SegmentationMetric, check_same_settings, vspw_scores
from mmseg.evaluation.tables import jsonable
from mmseg.registry import METRICS

NOTHING_IGNORED = -1


def warp_labels(labels: np.ndarray, flow: np.ndarray, align_corners: bool = False) -> np.ndarray:
    """Bring the labels of frame t + 1 back to frame t.

    The published code normalises positions for one corner convention and samples with the other: with
    ``align_corners=False`` (the default, its numbers) the last column of an even width and the last row of an
    even height fall outside even without motion, and positions are off by up to half a pixel.
    ``align_corners=True`` samples where the flow points. Positions outside the image become class 0 in both.

    Args:
        labels: (H, W) uint8, labels of frame t + 1.
        flow: (2, H, W) or (H, W, 2) float, pixels to the right and down from frame t to frame t + 1.
        align_corners: see above.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: `flow` does not have the size of `labels`.
    """
    height, width = labels.shape
    u, v = _components(flow, height, width)
    column, inside_x = _sample(np.arange(width, dtype=np.float32) + u, width, align_corners)
    row, inside_y = _sample(np.arange(height, dtype=np.float32)[:, None] + v, height, align_corners)
    warped = labels[row, column]
    warped[~(inside_x & inside_y)] = 0
    return warped


def _components(flow: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    flow = np.asarray(flow, dtype=np.float32)
    if flow.shape == (2, height, width):
        return flow[0], flow[1]
    if flow.shape == (height, width, 2):
        return flow[..., 0], flow[..., 1]
    raise DataError(
        f"optical flow of shape {flow.shape} for label maps {height}x{width}",
        f"(2, {height}, {width}) or ({height}, {width}, 2)",
        "compute the flow at the size of the label maps",
    )


def _sample(position: np.ndarray, size: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pixel (integer, clipped to the image) and whether it is inside; float32 steps as published."""
    normed = np.float32(2.0) * position / np.float32(max(size - 1, 1)) - np.float32(1.0)
    if align_corners:
        source = (normed + np.float32(1.0)) / np.float32(2.0) * np.float32(size - 1)
    else:
        source = ((normed + np.float32(1.0)) * np.float32(size) - np.float32(1.0)) / np.float32(2.0)
    nearest = np.rint(source)  # half to even
    inside = (nearest >= 0) & (nearest <= size - 1)  # a flow that is nan is outside
    return np.where(inside, nearest, 0).astype(np.intp), inside


@METRICS.register_module()
class TemporalConsistency:
    """TC over the frames of videos fed in order, each with the flow from the frame before.

    Args:
        num_classes: K.
        align_corners: sampling convention of :func:`warp_labels`; False gives the published numbers.
    """

    def __init__(self, num_classes: int, align_corners: bool = False) -> None:
        self.align_corners = align_corners
        self._pairs = SegmentationMetric(num_classes, ignore_index=NOTHING_IGNORED)
        self._order = FrameOrder()

    def update(
        self,
        video: str,
        frame: int,
        pred: np.ndarray,
        target: np.ndarray | None = None,
        flow: np.ndarray | None = None,
    ) -> None:
        """Take the next frame of a video.

        Args:
            video: name of the video.
            frame: its position, 0, 1, 2, ...
            pred: (H, W) class numbers 0..K-1.
            target: not used; TC knows no truth. Here so that all metrics can be fed alike.
            flow: (2, H, W) or (H, W, 2) float, from the frame before to this one; not needed for frame 0.

        Raises:
            DataError: the frame is not the next one, has another size than the one before, comes without
                flow or with one of another size, or holds a class >= K.
        """
        pred = check_label_map(pred, "prediction", video, frame)
        self._order.check(video, frame)
        previous = self._order.state(video)
        if previous is not None:
            check_same_size(video, frame, pred, previous)
            if flow is None:
                raise DataError(
                    f"frame {frame} of video {video!r} has no optical flow",
                    "the flow from the frame before to this one, for every frame but the first",
                    "pass flow=",
                )
            self._pairs.update(video, frame - 1, warp_labels(pred, flow, self.align_corners), previous)
        self._order.advance(video, pred.copy(), frame)

    def compute(self) -> dict[str, object]:
        """``TC`` over all pairs of frames of all videos, ``video_TC`` (name -> own TC), ``videos``, ``pairs``."""
        videos = list(self._order.num_frames)
        return {
            "TC": vspw_scores(self._pairs.confusion())["mIoU"],
            "video_TC": {v: vspw_scores(self._pairs.confusion([v]))["mIoU"] for v in videos},
            "videos": len(videos),
            "pairs": sum(map(self._pairs.num_frames, videos)),
        }

    def report(self) -> dict[str, object]:
        """:meth:`compute` and the convention used, as plain JSON values."""
        return jsonable({**self.compute(), "align_corners": self.align_corners})

    def end_video(self, video: str | None = None) -> None:
        """A video (None: every video fed so far) is complete: drop what was kept for its next frames."""
        self._order.end_video(video)
        self._pairs.end_video(video)

    def merge(self, other: TemporalConsistency) -> None:
        """Take over the videos of `other`.

        Raises:
            ConfigError: `other` was made with other settings.
            DataError: a video was fed to both.
        """
        check_same_settings((self.align_corners,), (other.align_corners,))
        self._order.merge(other._order)
        self._pairs.merge(other._pairs)
