"""A live video from Python: frames go in one by one, label maps come out."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator

from mmseg.apis.inference import known_device, pipeline_of, settings_of
from mmseg.engine.predictor import VideoPredictor
from mmseg.errors import ConfigError, DataError
from mmseg.making.flow import FlowNetwork, flow_network
from mmseg.making.flow_frames import FlowAhead
from mmseg.models.base import VideoModel
from mmseg.structures import Frame, Result
from mmseg.values import checked

logger = logging.getLogger("mmseg.apis")


def _half(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError("torch.bfloat16 or torch.float16")
    return dtype


AutocastType = Annotated[torch.dtype, AfterValidator(_half)]


class VideoStream:
    """A live video: frames go in one by one, label maps come out; memory use does not grow.

    Nothing that is returned belongs to a graph or to the stream's memory. Streams may run in threads of their own, also
    several of one model; one stream belongs to one thread at a time. As a context manager (``with VideoStream(model) as
    video``) it forgets all frames at the end of the block, and can be used again for the next video.

    Args:
        model: from :func:`init_segmentor`.
        aug_test: average over scales and flips.
        amp: type to compute in, see :func:`mmseg.engine.predict.predict`; None computes in the type of the weights.
        video: name of the video, for models that keep something per video.
        flow: for models that look at optical flow: what computes it (``raft``, ``raft_small``, ``dis``, ``farneback``,
            or a network of :func:`mmseg.making.flow.flow_network`). Results come one frame late then, by :meth:`push`
            and :meth:`finish`. None: it is given with each frame.
        flow_backward: compute the flow to the frame before, and answer at once. This changes the numbers.
        returns: None: label maps alone. Names of what else is wanted ("scores", "logits", "probabilities",
            "confidence"): :class:`mmseg.structures.Result` objects come instead, whose `labels`, `ids` and what has
            these names are filled in, all of the size of the frame.
        settings: of ``model.stream`` (`dilation`, `prototypes`, ...); default: those of the config.

    Raises:
        ConfigError: the model has no config with a test pipeline, a setting does not fit it, or it cannot give what
            `returns` asks for (THE-Mask has no probabilities), or `flow_backward` without `flow`.
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
        returns: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        if flow is not None and not model.takes_flow:
            raise ConfigError(
                f"flow={flow!r} for a {type(model).__name__}, which does not look at it", "no flow", "leave flow out"
            )
        if flow_backward and flow is None:
            raise ConfigError(
                "flow_backward=True without flow", "what computes it, as flow='raft'", "give flow, or leave this out"
            )
        settings = {**settings_of(model), **settings}
        model.check_settings(settings)
        self._predictor = VideoPredictor(
            model,
            pipeline_of(model, aug_test),
            settings,
            source=video,
            amp=amp,
            returns=returns or (),
            keep_images=False,
        )
        self._plain = returns is None
        self._flow_name, self._flow_backward = flow, flow_backward
        self._flow = self._flow_ahead()
        self._count = 0

    def __enter__(self) -> VideoStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        due = self._predictor.num_waiting + (self._flow is not None and self._flow.is_waiting)
        if due and kind is None:
            logger.warning("results of %d frame(s) were not asked for: call finish() inside of the with block", due)
        self.reset()

    def step(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> np.ndarray | Result:
        """The label map (H, W) uint8 of the next frame; zeros before the first mask, for models that are given masks.

        With `returns` a :class:`Result`: the label map is its `labels`.

        Args:
            frame: (H, W, 3) uint8 BGR, as OpenCV reads it.
            flow: (H, W, 3) uint8 coloured optical flow, for models that take it.
            mask: (H, W) object ids that are shown to the model, 0 for background.
            objects: the ids that `mask` speaks about; default: those in it.

        Raises:
            DataError: no such array, or another size than the frames before it (call :meth:`reset` at a cut).
            ConfigError: the results of this model come late: use :meth:`push` and :meth:`finish`. Or weights, type,
                device or mode of the model have changed since the first frame: call :meth:`reset`.
        """
        self._predictor.require_at_once()
        if self._flow is not None and not self._flow.backward:
            raise ConfigError(
                "step() while flow to the next frame is computed, which is not there yet",
                "push() and finish(), or flow_backward=True, or flow that is given with each frame",
                "iterate over what push() and finish() return",
            )
        [result] = self._push(frame, flow, mask, objects)
        if result.labels is None:
            result.labels = np.zeros(frame.shape[:2], np.uint8)
        return result.labels if self._plain else result

    def push(
        self,
        frame: np.ndarray,
        flow: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        objects: Sequence[int] | None = None,
    ) -> list[tuple[int, np.ndarray | Result | None]]:
        """Take in the next frame; (frame number, label map) of this frame and earlier ones, as far as they are ready.

        The label map is None before the first mask. With `returns` it is a :class:`Result`. Args and errors: see
        :meth:`step`.
        """
        return self._given_back(self._push(frame, flow, mask, objects))

    def finish(self) -> list[tuple[int, np.ndarray | Result | None]]:
        """What is still due, as from :meth:`push`; the next frame is then the first of a video.

        Raises:
            ConfigError: weights, type, device or mode of the model have changed since the first frame.
        """
        late = self._flow.finish() if self._flow is not None else []
        results = [result for frame in late for result in self._predictor.push(frame)]
        results += self._predictor.finish()
        self._count = 0
        return self._given_back(results)

    def remove(self, ids: Sequence[int]) -> None:
        """Stop following objects. Raises ConfigError for models of classes, DataError for what is no list of ids."""
        self._predictor.remove(_ids(ids, "ids"))

    def reset(self) -> None:
        """Forget all frames, those included whose results are due: the next one is the first of a video."""
        self._predictor.reset()
        if self._flow is not None:
            self._flow.reset()
        self._count = 0

    @checked
    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> VideoStream:
        """Move the model and begin anew: the next frame is the first of a video.

        What computes the flow comes along, unless it was given as an object. The model is the one that was given: other
        streams of it that are in the middle of a video raise ConfigError at their next frame, and go on after their
        :meth:`reset`.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``; None leaves the model where it is.
            dtype: of the weights; None leaves them as they are.

        Raises:
            ConfigError: no such device, or a `dtype` that is not floating-point.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise ConfigError(f"dtype = {dtype}", "a floating-point type", "take torch.float32")
        place = self._predictor.device if device is None else known_device(device)
        self._predictor.model.to(device=place, dtype=dtype)
        self.reset()
        self._flow = self._flow_ahead()
        return self

    def _flow_ahead(self) -> FlowAhead | None:
        if self._flow_name is None:
            return None
        return FlowAhead(flow_network(self._flow_name, device=self._predictor.device), self._flow_backward)

    def _given_back(self, results: Sequence[Result]) -> list[tuple[int, np.ndarray | Result | None]]:
        return [(result.frame.number, result.labels if self._plain else result) for result in results]

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
