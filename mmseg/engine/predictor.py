"""One video on its way through a model: a stream per view of a frame, and the way back to the frame's geometry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.ahead import at, place_of
from mmseg.engine.answers import Geometry, Returned, answer, check_returns, fetched
from mmseg.errors import ConfigError, DataError
from mmseg.models.base import VideoModel
from mmseg.models.cpu.bfloat16 import mixed_type
from mmseg.models.cpu.kernels.library import library
from mmseg.models.stream import Pending, computed_together
from mmseg.structures import Frame, Result, Scores, Size, Video, View

_LARGEST_ID = 255  # label maps are 8-bit
Waiting = tuple[Frame | None, Size | None, Sequence[Geometry]]  # a frame, its size, geometry of each view
Parts = list[tuple[View, Any]]  # each view of a frame with what the model has prepared of it


class Admitted(NamedTuple):
    """A frame that the streams have taken in.

    Attributes:
        waiting: see :data:`Waiting`.
        pending: the scores of its views, to be computed; nothing for a frame that is not wanted.
    """

    waiting: Waiting
    pending: Sequence[Pending]


class VideoPredictor:
    """One stream per view of a frame, and the way back from the network's geometry to the frame's.

    Args:
        model, pipeline, settings, video, source, amp, returns: see :func:`mmseg.engine.predict.predict`.
        keep_images: False drops the pictures of waiting frames even where they cannot be read again.

    Attributes:
        network: what computes: the model, or the same with weights in bfloat16.

    Raises:
        ConfigError: `returns` holds what this model cannot give.
    """

    def __init__(
        self,
        model: VideoModel,
        pipeline: TestPipeline,
        settings: Mapping[str, Any] | None = None,
        *,
        video: Video | None = None,
        source: Any = None,
        amp: torch.dtype | None = None,
        returns: Collection[Returned] = (),
        keep_images: bool = True,
    ) -> None:
        if returns:
            check_returns(returns, model, model.score_kind, pipeline.num_views)
        self.model, self.pipeline, self.settings = model, pipeline, dict(settings or {})
        self.video, self.source, self.amp, self.keep_images = video, source, amp, keep_images
        self.returns = tuple(returns)
        self.network = model
        self.reset()

    @property
    def device(self) -> torch.device:
        """Where the model is at present."""
        return next(self.model.parameters()).device

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self.streams: list | None = None
        self._changes: int | None = None  # of the model, when the streams were opened
        self._size: Size | None = None
        self._waiting: deque[Waiting] = deque()  # frames that wait for their result, oldest first

    @property
    def num_waiting(self) -> int:
        """Frames whose results are due."""
        return len(self._waiting)

    def push(self, frame: Frame) -> Iterator[Result]:
        """Take in the next frame; results of it and of earlier ones, to be taken before the next push.

        Raises:
            SegError: the frame does not fit those before it, or the model cannot use it; the message names the frame.
        """
        return self.push_views(frame, self.pipeline.checked_views(frame, self.model.takes_flow))

    def push_views(self, frame: Frame, views: Sequence[View]) -> Iterator[Result]:
        """:meth:`push` for a frame whose views were made elsewhere (in a loader thread, say)."""
        with at(place_of(frame)):
            size = self._checked_size(frame)
            self._open(len(views))
            with self.precision():
                answers = [stream.push(self.on_device(view)) for stream, view in zip(self.streams, views, strict=True)]
            self._size = size
            if frame.wanted:
                self._waiting.append((frame, size, [(view.size, view.steps) for view in views]))
            yield from self._results(answers)
        if self._waiting and self._waiting[-1][0] is frame and (frame.reload is not None or not self.keep_images):
            frame.image = frame.flow = frame.given = None

    def views(self, frame: Frame) -> list[View]:
        """The views of a frame, where they can be copied to a GPU without a wait; in any thread."""
        with at(place_of(frame)):
            views = self.pipeline.checked_views(frame, self.model.takes_flow)
        if self.device.type == "cuda":
            for view in views:
                view.inputs["img"] = view.inputs["img"].pin_memory()
        return views

    def prepare(self, frame: Frame) -> Parts:
        """The views of a frame, each with what the model computes of it without other frames; in any thread."""
        views = [self.on_device(view) for view in self.views(frame)]
        with at(place_of(frame)), self.precision(), torch.no_grad():
            return [(view, self.network.prepare(view)) for view in views]

    @torch.no_grad()
    def prepare_together(self, views: Sequence[Sequence[View]]) -> list[Parts]:
        """:meth:`prepare` for the views of several frames that are of one size."""
        with self.precision():
            per_view = [[self.on_device(view) for view in of_frames] for of_frames in zip(*views, strict=True)]
            prepared = [self.network.prepare_together(of_frames) for of_frames in per_view]
        return [list(zip(*of_frame)) for of_frame in zip(zip(*per_view), zip(*prepared))]

    def admit(self, frame: Frame, parts: Parts) -> Admitted:
        """:meth:`push` for threads: take in a frame as :meth:`prepare` gave it.

        Its results may be computed in any thread, after further frames, too.
        """
        with at(place_of(frame)):
            size = self._checked_size(frame)
            self._open(len(parts))
            with self.precision():
                work = [stream.admit(*part) for stream, part in zip(self.streams, parts, strict=True)]
            if any(len(of_view) != frame.wanted for of_view in work):
                raise RuntimeError(
                    f"{type(self.model).__name__}: not one result, or one for a frame that is not wanted"
                )
        self._size = size
        return Admitted(
            (frame, size, [(view.size, view.steps) for view, _ in parts]), [w for of_view in work for w in of_view]
        )

    def compute(self, admitted: Admitted) -> list[Result]:
        """The result of a frame if it is wanted; in any thread."""
        if not admitted.pending:
            return []
        frame = admitted.waiting[0]
        with at(place_of(frame)), self.precision(), torch.no_grad():
            return [self._result([compute() for compute in admitted.pending], admitted.waiting)]

    @torch.no_grad()
    def compute_together(self, admitted: Sequence[Admitted]) -> list[Callable[[], Result]]:
        """The results of all frames that are wanted, in order; a call waits until the GPU has one."""
        wanted = [one for one in admitted if one.pending]
        with self.precision():
            per_view = [computed_together(pending) for pending in zip(*(one.pending for one in wanted))]
            return [self._answered(scores, one.waiting) for one, scores in zip(wanted, zip(*per_view))]

    def require_unchanged(self) -> None:
        """Raise ConfigError if weights or mode of the model have changed since the first frame."""
        self._tell_of_changes()
        for stream in self.streams or ():
            stream.require_unchanged()

    def finish(self) -> Iterator[Result]:
        """The results that are still due; afterwards the next frame is the first of a video.

        Raises:
            RuntimeError: the model has left frames without an answer.
        """
        if self.streams is not None:
            with self.precision():
                answers = [stream.finish() for stream in self.streams]
            yield from self._results(answers)
            if self._waiting:
                numbers = [frame.number for frame, *_ in self._waiting][:5]
                raise RuntimeError(f"{type(self.model).__name__} gave no scores for the wanted frames {numbers}")
        self.reset()

    def require_at_once(self) -> None:
        """Raise ConfigError for a model whose results come late."""
        self._open(1 if self.streams is None else len(self.streams))
        if not self.streams[0].answers_at_once:
            raise ConfigError(
                f"step() with a {type(self.model).__name__}, whose results come late",
                "push() and finish()",
                self.streams[0].at_once or "iterate over what they return",
            )

    def begin(self) -> None:
        """Decide what computes, before the first frame of a video; called by itself where nobody has.

        Autocast casts weights and activations anew in every frame, so a model that is cast already is taken.
        """
        if self.device.type == "cpu":
            library()  # compiled now, if they are, and not in a frame
        self.amp = mixed_type(self.amp, self.device)
        rounds = self.amp is torch.bfloat16 and next(self.model.parameters()).dtype == torch.float32
        rounds &= self.model.bfloat16_weights and not _is_compiled(self.model)
        self.network = self.model.in_bfloat16() if rounds else self.model
        self._changes = self.model.changes

    def _open(self, num_views: int) -> None:
        """One stream per view."""
        if not self.streams:
            self.begin()
            self.streams = []
        while len(self.streams) < num_views:
            self.streams.append(self.network.stream(self.source, **self.settings))
        self._tell_of_changes()

    def _tell_of_changes(self) -> None:
        """Streams know the model that computes alone."""
        if self.network is not self.model and self._changes != self.model.changes:
            self._changes = self.model.changes
            self.network.changes += 1

    def remove(self, ids: Iterable[int]) -> None:
        """Stop following objects. Raises ConfigError for models of classes."""
        self._open(len(self.streams or (None,)))
        for stream in self.streams:
            stream.remove(ids)

    @property
    def ids(self) -> tuple[int, ...]:
        """Object ids that are followed at present."""
        return self.streams[0].ids if self.streams else ()

    def _checked_size(self, frame: Frame) -> Size:
        size = tuple(frame.image.shape[:2])
        if self._size not in (None, size):
            raise DataError(
                f"a frame of {size[1]}x{size[0]} pixels after frames of {self._size[1]}x{self._size[0]}",
                "all frames of a video to have one size",
                "start a new stream (reset) at the cut, or resize the frames",
            )
        return size

    def precision(self) -> torch.autocast:
        """In which the network computes."""
        mixed = self.amp is not None and self.network is self.model
        return torch.autocast(self.device.type, dtype=self.amp, enabled=mixed)

    def on_device(self, view: View) -> View:
        """A view as the network takes it."""
        dtype = next(self.network.parameters()).dtype
        moved = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in view.inputs.items()
        }
        moved["img"] = moved["img"].to(dtype)
        return View(view.number, moved, view.steps, view.wanted)

    def _results(self, answers: Sequence[Iterable[Scores]]) -> Iterator[Result]:
        """All views answer for the same frames at the same time."""
        iterators = [iter(answer) for answer in answers]
        while True:
            with self.precision(), torch.no_grad():  # lazy results are computed here
                per_view = [next(iterator, None) for iterator in iterators]
            if per_view[0] is None:
                return
            yield self._result(per_view, self._waiting.popleft() if self._waiting else (None, None, ()))

    @torch.no_grad()
    def _result(self, per_view: Sequence[Scores], waiting: Waiting) -> Result:
        return self._answered(per_view, waiting)()

    def _answered(self, per_view: Sequence[Scores], waiting: Waiting) -> Callable[[], Result]:
        """The result of a frame; a call waits until it is there."""
        frame, frame_size, geometry = waiting
        first = per_view[0]
        if frame is None or any(s is None or (s.number, s.ids) != (frame.number, first.ids) for s in per_view):
            due = "none" if frame is None else frame.number
            raise RuntimeError(f"{type(self.model).__name__}: scores of frame {first.number} while frame {due} is due")
        if first.values is None:
            return partial(Result, self.video, frame, None)
        check_returns(self.returns, self.model, first.kind, len(per_view))
        arrays = fetched(answer(per_view, geometry, frame.size or frame_size, self.returns))
        table = None if first.ids is None else _ids_table(first.ids)

        def result() -> Result:
            said = arrays()
            if table is not None:
                said["labels"] = table[said["labels"]]
            return Result(self.video, frame, ids=first.ids, **said)

        return result


def _is_compiled(model: VideoModel) -> bool:
    """What is compiled belongs to these weights and to no copy of them."""
    return any(module._compiled_call_impl is not None for module in model.modules())


def _ids_table(ids: Sequence[int]) -> np.ndarray:
    if max(ids) > _LARGEST_ID or min(ids) < 0:
        raise DataError(f"object ids {list(ids)}", f"0 to {_LARGEST_ID}, label maps are 8-bit", "renumber the objects")
    return np.asarray(ids, np.uint8)
