"""What is done for the next frames while this one is computed: their views; on a CPU, frames side by side as well.

Operators that are cut in two for two cores leave one of them idle at every seam, and both when another thread (which
decodes, encodes, writes) takes one of them away. Two frames with a core each have no seams.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import torch

from mmseg.errors import SegError
from mmseg.structures import Frame, Result

if TYPE_CHECKING:
    from mmseg.engine.predictor import VideoPredictor

Made = TypeVar("Made")

_SIDE_BY_SIDE = 2  # frames, each with its share of the cores; more of them would hold more memory
_SHARING = threading.Lock()  # while the number that new threads begin with is not that of this process


def works_side_by_side(predictor: VideoPredictor) -> bool:
    """Whether :func:`side_by_side` is the way to go: on a CPU of several cores, with a model that works in parts."""
    return predictor.device.type == "cpu" and _num_threads() > 1 and predictor.model.in_parts


def _num_threads() -> int:
    with _SHARING:  # a thread that has not asked yet takes the number that any thread has set last
        return torch.get_num_threads()


def side_by_side(predictor: VideoPredictor, frames: Iterable[Frame]) -> Iterator[Result]:
    """The results of all frames, in order, of which two are worked on at any time; a few are in memory.

    Threads encode frames, in any order; this one lets the streams take them in, in order; threads compute the results.

    Raises:
        SegError: see :func:`mmseg.engine.predict.predict`; results of the frames before come first.
    """
    predictor.begin()
    due: deque[tuple[Frame, Future[list[Result]]]] = deque()
    failure: Exception | None = None
    with _threads() as pool, closing(made_ahead(frames, predictor.prepare, pool, _SIDE_BY_SIDE)) as prepared:
        while failure is None:
            try:
                frame, parts = next(prepared)
                due.append((frame, pool.submit(predictor.compute, predictor.admit(frame, parts))))
            except StopIteration:
                break
            except Exception as error:  # raised when its turn comes
                failure = error
            if len(due) > _SIDE_BY_SIDE:
                yield from _result(predictor, *due.popleft())
        while due:
            yield from _result(predictor, *due.popleft())
    if failure is not None:
        raise failure
    predictor.reset()


def _result(predictor: VideoPredictor, frame: Frame, future: Future[list[Result]]) -> list[Result]:
    results = future.result()
    with at(place_of(frame)):
        predictor.require_unchanged()  # else nobody knows which weights it was computed with
    return results


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for frames side by side, whose operators have their share of this thread's cores."""
    cores, ready = _num_threads(), threading.Barrier(_SIDE_BY_SIDE + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call would put another one in the place of what is set before
        torch.set_num_threads(max(1, cores // _SIDE_BY_SIDE))
        with suppress(threading.BrokenBarrierError):  # a signal came just now
            ready.wait()

    pool = ThreadPoolExecutor(_SIDE_BY_SIDE, "frames", start)
    try:
        with _SHARING:
            try:
                for _ in range(_SIDE_BY_SIDE):
                    pool.submit(int)
                ready.wait()
            finally:
                torch.set_num_threads(cores)  # what threads begin with that are started later, by others
        yield pool
    finally:
        ready.abort()
        pool.shutdown(wait=True, cancel_futures=True)


def made_ahead(
    frames: Iterable[Frame], make: Callable[[Frame], Made], pool: ThreadPoolExecutor, depth: int
) -> Iterator[tuple[Frame, Made]]:
    """Every frame with ``make(frame)``, which threads of the pool do for `depth` frames in advance.

    What is wrong with a frame, or with reading it, is raised when its turn comes.
    """
    ahead: deque[tuple[Frame, Future[Made]]] = deque()
    failure: Exception | None = None
    number = -1
    iterator = iter(frames)
    try:
        while True:
            try:
                with at(f"frame {number + 1}"):
                    frame = next(iterator, None)
            except Exception as error:
                frame, failure = None, error
            if frame is None:
                break
            number = frame.number
            ahead.append((frame, pool.submit(make, frame)))
            if len(ahead) > depth:
                frame, made = ahead.popleft()
                yield frame, made.result()
        while ahead:
            frame, made = ahead.popleft()
            yield frame, made.result()
        if failure is not None:
            raise failure
    finally:
        for _, made in ahead:
            made.cancel()
        if hasattr(iterator, "close"):
            iterator.close()


@contextmanager
def at(place: str, separator: str = ": ") -> Iterator[None]:
    """Errors inside get `place` in front of their message, unless they name it already."""
    try:
        yield
    except SegError as error:
        if f"{place}{separator}" in error.found:
            raise
        raise type(error)(f"{place}{separator}{error.found}", error.expected, error.action) from error
    except (RuntimeError, ValueError, OSError) as error:
        if str(error).startswith(f"{place}{separator}"):
            raise
        raise RuntimeError(f"{place}{separator}{error}") from error


def place_of(frame: Frame) -> str:
    """A frame, for messages."""
    return f"frame {frame.number} ({frame.path or frame.name})"
