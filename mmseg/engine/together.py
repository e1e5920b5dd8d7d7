"""Frames of one video computed several at a time on a GPU, which a single one keeps waiting.

A frame is hundreds of small kernels that take longer to start than to run. Nothing of what is computed of a frame
alone, and nothing of how it is decoded, waits for the frames after it, so those that are there anyway pass as a batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import torch

from mmseg.engine.ahead import at, made_ahead, place_of
from mmseg.errors import SegError
from mmseg.structures import Frame, Result, View

if TYPE_CHECKING:
    from mmseg.engine.predictor import Admitted, VideoPredictor

_FRAMES = 8  # by reasoning, no GPU was at hand: a launch costs each of them an eighth
_THREADS = 8  # that make views, at most
_MEMORY = 1400  # bytes that a pixel of a frame takes in float32, label map included; by count, with room to spare
Item = tuple[Frame, list[View]]


def works_together(predictor: VideoPredictor) -> bool:
    """Whether :func:`together` is the way to go: on a GPU, with a model that works in parts."""
    return predictor.device.type == "cuda" and predictor.model.in_parts


def together(predictor: VideoPredictor, frames: Iterable[Frame]) -> Iterator[Result]:
    """The results of all frames, in order, of which up to 8 are computed at once, as far as there is memory for them.

    While the GPU computes some, threads make the views of the next ones, and what it has computed is handed out.

    Raises:
        SegError: see :func:`mmseg.engine.predict.predict`; results of the frames before come first.
    """
    predictor.begin()
    computed: deque[list[tuple[Frame, Callable[[], Result]]]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "views")
    try:
        with closing(made_ahead(frames, predictor.views, pool, 2 * _FRAMES)) as items:
            while failure is None:
                group, failure = _next_group(items, predictor.device)
                if not group and failure is None:
                    break
                started, error = _start(predictor, group)
                failure = error or failure
                computed.append(started)
                if len(computed) > 1:
                    yield from _results(predictor, computed.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    while computed:
        yield from _results(predictor, computed.popleft())
    if failure is not None:
        raise failure
    predictor.reset()


def _next_group(items: Iterator[Item], device: torch.device) -> tuple[list[Item], Exception | None]:
    """The next frames, fewer of them before the end or before one that cannot be read; and why it cannot."""
    group: list[Item] = []
    try:
        for item in items:
            if not group:
                number = _number(item[1], device)
            group.append(item)
            if len(group) == number:
                break
    except Exception as error:  # raised when its turn comes
        return group, error
    return group, None


def _number(views: list[View], device: torch.device) -> int:
    """How many frames with such views take at most half of the memory that is free."""
    if device.type != "cuda":
        return _FRAMES
    own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + own
    pixels = max(height * width for height, width in (view.size for view in views))
    return max(1, min(_FRAMES, free // 2 // (pixels * _MEMORY)))


def _start(
    predictor: VideoPredictor, group: list[Item]
) -> tuple[list[tuple[Frame, Callable[[], Result]]], Exception | None]:
    """Let the GPU begin with frames; what gives the results of those that are wanted, and why it ends before the last.

    What is wrong with one of them is found out when it is computed alone, after those before it; and what does not fit
    in memory is computed alone.
    """
    try:
        parts = predictor.prepare_together([views for _, views in group]) if _are_alike(group) else None
    except (SegError, torch.OutOfMemoryError):
        parts = None
    admitted, failure = [], None
    for number, (frame, views) in enumerate(group):
        try:
            with at(place_of(frame)):
                own = parts[number] if parts else predictor.prepare_together([views])[0]
            admitted.append(predictor.admit(frame, own))
        except Exception as error:
            failure = error
            break
    wanted = [one for one in admitted if one.pending]
    return list(zip((one.waiting[0] for one in wanted), _computed(predictor, wanted), strict=True)), failure


def _computed(predictor: VideoPredictor, wanted: list[Admitted]) -> list[Callable[[], Result]]:
    try:
        return predictor.compute_together(wanted)
    except (SegError, torch.OutOfMemoryError):
        return [partial(_alone, predictor, one) for one in wanted]


def _alone(predictor: VideoPredictor, admitted: Admitted) -> Result:
    [result] = predictor.compute(admitted)
    return result


def _are_alike(group: list[Item]) -> bool:
    return len({tuple((view.size, view.inputs["img"].dtype) for view in views) for _, views in group}) == 1


def _results(predictor: VideoPredictor, computed: list[tuple[Frame, Callable[[], Result]]]) -> Iterator[Result]:
    for frame, result in computed:
        with at(place_of(frame)):
            predictor.require_unchanged()  # else nobody knows which weights it was computed with
            found = result()
        yield found
