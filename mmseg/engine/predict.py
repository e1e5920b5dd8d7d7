"""From the frames of one video to its label maps: pre-processing, the model's stream, and post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmseg.datasets.transforms import TestPipeline, View
from mmseg.errors import DataError
from mmseg.models.base import BaseSegmentor
from mmseg.models.cpu.label_map import Size, label_map, resize_logits


class VideoPredictor:
    """Label maps of the frames of one video, in order; every frame is encoded once per view.

    With test-time augmentation there is one stream per view (scale, flip); flips are undone and the softmax of the
    views averaged at the original size.

    Args:
        model: in eval mode.
        pipeline: gives the views of a frame.
        video: name of the video, or the whole video (see ``ClipHead.stream_context``), for models that keep something
            per video.
        amp: type to compute in under autocast, e.g. ``torch.bfloat16``; None computes in float32.
        context: further arguments of ``model.stream``.
    """

    def __init__(
        self,
        model: BaseSegmentor,
        pipeline: TestPipeline,
        video: Any = None,
        amp: torch.dtype | None = None,
        **context: Any,
    ) -> None:
        self.model, self.pipeline, self.video, self.amp, self.context = model, pipeline, video, amp, context
        self.device = next(model.parameters()).device
        self._streams: list | None = None
        self._size: Size | None = None

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self._streams = self._size = None

    def step(self, frame: np.ndarray) -> Tensor:
        """The label map (H, W) uint8, on the model's device, of the next frame (H, W, 3) uint8 BGR.

        Raises:
            DataError: the array is no such frame, or its size differs from that of the frames before it.
        """
        check_frame(frame)
        return self.step_views(self.pipeline.views(frame), frame.shape[:2])

    @torch.no_grad()
    def step_views(self, views: Sequence[View], size: Size) -> Tensor:
        """:meth:`step` for a frame of original `size` whose views were made elsewhere (in a loader thread, say)."""
        size = tuple(size)
        if self._size not in (None, size):
            raise DataError(
                f"a frame of {size[1]}x{size[0]} pixels after frames of {self._size[1]}x{self._size[0]}",
                "all frames of a video to have one size",
                "start a new stream (reset) at the cut, or resize the frames",
            )
        if self._streams is None:
            self._streams = [self.model.stream(self.video, **self.context) for _ in views]
            self._size = size
        if len(views) == 1 and not views[0].flip:
            logits, sizes = self._logits(views[0], self._streams[0])
            return label_map(logits, [*sizes, size])
        scores = None
        for view, stream in zip(views, self._streams, strict=True):
            logits, sizes = self._logits(view, stream)
            probabilities = resize_logits(logits, [*sizes, size]).softmax(dim=0)  # (K, H, W)
            if view.flip:
                probabilities = probabilities.flip(-1)
            scores = probabilities if scores is None else scores.add_(probabilities)
        return scores.div_(len(views)).argmax(dim=0).to(torch.uint8)

    def _logits(self, view: View, stream: Any) -> tuple[Tensor, list[Size]]:
        """float32 logits of a view before the resize to its input size, and that size."""
        img = view.img.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            logits = stream.coarse_step(img)
        return logits.float(), [tuple(img.shape[-2:])]


def check_frame(frame: np.ndarray) -> None:
    """Raise DataError unless `frame` is an (H, W, 3) uint8 array."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        found = f"{frame.dtype} array {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise DataError(
            f"a frame that is {found}", "(H, W, 3) uint8 in BGR order, as cv2.imread gives it", "convert the frame"
        )
