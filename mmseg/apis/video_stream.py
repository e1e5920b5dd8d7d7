"""A live video from Python: frames go in one by one, label maps come out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator

from mmseg.apis.inference import pipeline_of, settings_of
from mmseg.engine.predict import VideoPredictor
from mmseg.errors import ConfigError, DataError
from mmseg.making.flow import FlowNetwork, flow_network
from mmseg.making.flow_frames import FlowAhead
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Result
from mmseg.values import checked


def _half(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError("torch.bfloat16 or torch.float16")
    return dtype


AutocastType = Annotated[torch.dtype, AfterValidator(_half)]


class VideoStream:
    """A live video: frames go in one by one, label maps come out; memory use does not grow.

    Args:
        model: from :func:`init_segmentor`.
        aug_test: average over scales and flips.
        amp: type to compute in under autocast; None computes in the type of the weights.
        video: name of the video, for models that keep something per video.
        flow: for models that look at optical flow: what computes it (``raft``, ``raft_small``, ``dis``, ``farneback``,
            or a network of :func:`mmseg.making.flow.flow_network`). Results come one frame late then, by :meth:`push`
            and :meth:`finish`. None: it is given with each frame.
        flow_backward: compute the flow to the frame before, and answer at once. This changes the numbers.
        settings: of ``model.stream`` (`dilation`, `prototypes`, ...); default: those of the config.

    Raises:
        ConfigError: the model has no config with a test pipeline, or a setting does not fit it.
    """

    @checked
    def __init__(
        self,
        model: VideoModel,
        aug_test: bool = False,
        amp: AutocastType | None = None,
        video: str | None = None,
        flow: str | FlowNetwork | None = None,
        flow_backward: bool = False,
        **settings: Any,
    ) -> None:
        if flow is not None and not model.takes_flow:
            raise ConfigError(
                f"flow={flow!r} for a {type(model).__name__}, which does not look at it", "no flow", "leave flow out"
            )
        device = next(model.parameters()).device
        self._flow = None if flow is None else FlowAhead(flow_network(flow, device=device), flow_backward)
        settings = {**settings_of(model), **settings}
        model.check_settings(settings)
        pipeline = pipeline_of(model, aug_test)
        self._predictor = VideoPredictor(model, pipeline, settings, source=video, amp=amp, keep_images=False)
        self._count = 0

    def step(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> np.ndarray:
        """The label map (H, W) uint8 of the next frame; zeros before the first mask, for models that are given masks.

        Args:
            frame: (H, W, 3) uint8 BGR, as OpenCV reads it.
            flow: (H, W, 3) uint8 coloured optical flow, for models that take it.
            mask: (H, W) object ids that are shown to the model.
            objects: the ids that `mask` speaks about; default: those in it.

        Raises:
            DataError: no such array, or another size than the frames before it (call :meth:`reset` at a cut).
            ConfigError: the results of this model come late: use :meth:`push` and :meth:`finish`.
        """
        self._predictor.require_at_once()
        if self._flow is not None and not self._flow.backward:
            raise ConfigError(
                "step() while flow to the next frame is computed, which is not there yet",
                "push() and finish(), or flow_backward=True, or flow that is given with each frame",
                "iterate over what push() and finish() return",
            )
        results = self._push(frame, flow, mask, objects)
        labels = results[0].labels
        return np.zeros(frame.shape[:2], np.uint8) if labels is None else labels

    def push(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> list[tuple[int, np.ndarray | None]]:
        """Take in the next frame; (frame number, label map) of this frame and earlier ones, as far as they are ready.

        Args and errors: see :meth:`step`.
        """
        return [(result.frame.number, result.labels) for result in self._push(frame, flow, mask, objects)]

    def finish(self) -> list[tuple[int, np.ndarray | None]]:
        """The label maps that are still due; the next frame is then the first of a video."""
        late = self._flow.finish() if self._flow is not None else []
        results = [result for frame in late for result in self._predictor.push(frame)]
        results += self._predictor.finish()
        self._count = 0
        return [(result.frame.number, result.labels) for result in results]

    def remove(self, ids: Sequence[int]) -> None:
        """Stop following objects. Raises ConfigError for models of classes, DataError for what is no list of ids."""
        self._predictor.remove(_ids(ids, "ids"))

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self._predictor.reset()
        if self._flow is not None:
            self._flow.reset()
        self._count = 0

    def _push(
        self, image: Any, flow: np.ndarray | None, mask: np.ndarray | None, objects: Sequence[int] | None
    ) -> list[Result]:
        if objects is not None and mask is None:
            raise DataError("objects without a mask", "the ids that a mask speaks about", "give the mask, too")
        ids = None if objects is None else _ids(objects, "objects")
        if self._flow is not None and isinstance(image, np.ndarray):
            image = image.copy()  # it is looked at again with the next one; cameras write all frames into one buffer
        frame = Frame(self._count, f"{self._count:06d}", image, flow=flow, given=mask, objects=ids)
        if self._flow is not None and flow is not None:
            raise ConfigError("flow given with a frame while it is computed", "one of the two", "leave one out")
        frames = [frame] if self._flow is None else self._flow.push(frame)
        results = [result for ready in frames for result in self._predictor.push(ready)]
        self._count += 1
        return results


def _ids(ids: Any, name: str) -> tuple[int, ...]:
    """Object ids of a list, an array or the like. Raises DataError for anything else."""
    try:
        return tuple(map(operator.index, ids))
    except TypeError as error:
        raise DataError(
            f"{name}={ids!r}", "a list of object ids, which are whole numbers", f"correct {name}"
        ) from error
