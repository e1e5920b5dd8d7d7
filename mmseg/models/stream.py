"""A stream: the frames of one video go in, in order; scores come out, at once or later.

It is the policy around a model's functions of single frames: what is kept of a frame, for how long, and which frames a
prediction looks at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError, DataError
from mmseg.models.checks import check_view
from mmseg.models.cpu.pages import keep_pages_on_cpu
from mmseg.models.layers.resize import resize
from mmseg.models.states import join_frames, shapes
from mmseg.structures import Scores, View

if TYPE_CHECKING:
    from mmseg.models.base import VideoModel


class Pending:
    """The scores of a frame that are yet to be computed: a call does it, in any thread.

    Args:
        number: of the frame.
        decode: gives scores (n, K, h, w) for states of n frames.
        states: of this frame, and of others that it looks at: tensors with n = 1 on axis 0, or containers of such.
        shared: what follows the states and is the same for all frames.
        context: keyword arguments, tensors or lists of one entry per frame.
    """

    def __init__(self, number: int, decode: Callable[..., Tensor], *states: Any, shared: Any, **context: Any) -> None:
        self.number, self.decode, self.states, self.shared, self.context = number, decode, states, shared, context

    @torch.no_grad()
    def __call__(self) -> Scores:
        return Scores(self.number, self.decode(*self.states, self.shared, **self.context)[0])

    def goes_with(self, other: Pending) -> bool:
        """Whether one call can compute both."""
        alike = (
            self.decode == other.decode and self.shared is other.shared and self.context.keys() == other.context.keys()
        )
        return alike and shapes([self.states, self.context]) == shapes([other.states, other.context])


@torch.no_grad()
def computed_together(pending: Sequence[Pending]) -> list[Scores]:
    """The scores of several frames, with one call for all neighbours that can have it."""
    found: list[Scores] = []
    while len(found) < len(pending):
        first, *others = pending[len(found) :]
        group = [first, *itertools.takewhile(first.goes_with, others)]
        if len(group) == 1:
            found.append(first())
            continue
        states = join_frames([one.states for one in group])
        context = {name: _of_all([one.context[name] for one in group]) for name in first.context}
        values = first.decode(*states, first.shared, **context)  # (n, K, h, w)
        found += [Scores(one.number, value) for one, value in zip(group, values, strict=True)]
    return found


def _of_all(values: Sequence[Tensor | list]) -> Tensor | list:
    """Keyword arguments of several frames as one: the entries one after the other."""
    return torch.cat(values) if isinstance(values[0], Tensor) else list(itertools.chain.from_iterable(values))


class Stream:
    """State of a model between the frames of one video.

    Every wanted frame gets exactly one :class:`Scores`, in frame order, at once or later; an unwanted one gets none.
    Weights are folded at the first frame of a video; weights that change before its last one are an error. On a CPU the
    whole process keeps freed memory from now on, see :func:`mmseg.models.cpu.pages.keep_pages`.

    Subclasses write :meth:`_take` (of models that work `in_parts`, :meth:`_admit`) and, if results come late,
    :meth:`_rest` and `answers_at_once`; what to do to get them at once, if that is possible; and how many frames are
    answered together.
    """

    answers_at_once = True
    at_once: str | None = None
    block_length = 1

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        if (weight := next(model.parameters(), None)) is not None:
            keep_pages_on_cpu(weight.device)
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a video."""
        self.model.require_eval()
        self._folded: Any = None  # weights as they are at the first frame
        self._changes: int | None = None
        self._autocast: tuple | None = None
        self._size: tuple[int, int] | None = None
        self._untaken = False  # results of the last push or finish that nobody has asked for yet
        self.count = 0  # frames so far

    @property
    def ids(self) -> tuple[int, ...]:
        """Object ids that the stream follows at present; () for models of classes."""
        return ()

    def remove(self, ids: Iterable[int]) -> None:
        """Stop following objects. Raises ConfigError for models of classes."""
        raise ConfigError(
            f"remove({list(ids)}) on a stream of {type(self.model).__name__}",
            "a model that follows objects",
            "nothing is to be removed: its results are classes",
        )

    def push(self, view: View) -> Iterable[Scores]:
        """Take in the next frame.

        Args:
            view: its inputs on the model's device.

        Returns:
            Results of this frame and of earlier ones, in frame order; those that are lazy are computed while they are
            iterated, and have to be taken before the next push.

        Raises:
            DataError: a frame of another size than those before it.
            ConfigError: weights, mode or autocast have changed since the first frame, or results were not taken.
        """
        return self._offered(self._next(view, lambda: self._take(view)))

    def admit(self, view: View, prepared: Any) -> list[Pending]:
        """:meth:`push` for threads: take in the next frame, and put off what its results are computed with.

        Only for models that work `in_parts`, all of whose streams answer at once.

        Args:
            view: see :meth:`push`.
            prepared: what :meth:`VideoModel.prepare` gave for it.

        Returns:
            What gives a result each, in frame order. It may be called in any thread, after further frames, too, or with
            others by :func:`computed_together`.

        Raises:
            DataError, ConfigError: see :meth:`push`.
        """
        return self._next(view, lambda: self._admit(view, prepared))

    def require_unchanged(self) -> None:
        """Raise ConfigError if weights or mode have changed since the first frame."""
        if self._changes not in (None, self.model.changes):
            raise _changed("weights, device or type of the model have changed", self.count)

    def finish(self) -> Iterable[Scores]:
        """Results of the frames that still wait for theirs; afterwards the stream is as after :meth:`reset`.

        Raises:
            ConfigError: there are some, and weights, mode or autocast have changed since the first frame.
        """
        self._require_taken()
        rest = self._rest()
        if isinstance(rest, list | tuple):
            self.reset()
            return rest
        return self._offered(rest, last=True)

    def step(self, img: Tensor, **inputs: Any) -> Tensor:
        """The result (K, H, W) of the next frame `img` (C, H, W) at input size: class logits for the models of classes.

        Args:
            img: normalised, on the model's device.
            inputs: further inputs of the view (`given`, `objects`).

        Raises:
            DataError: a frame of another size than those before it.
            ConfigError: this stream gives no result at once, or as for :meth:`push`.
        """
        if not self.answers_at_once:
            raise ConfigError(
                f"step() on a stream of {type(self.model).__name__}, whose results come late",
                "push() and finish()",
                self.at_once or "iterate over what they return",
            )
        results = list(self.push(View(self.count, {"img": img, **inputs})))
        if len(results) != 1 or results[0].values is None:
            raise ConfigError(
                f"no result for frame {self.count - 1}", "exactly one", "use push() and finish(), or give a mask first"
            )
        return resize(results[0].values[None], tuple(img.shape[-2:]))[0]

    def _next(self, view: View, take: Callable[[], Any]) -> Any:
        """What `take` gives for the next frame, once it has been checked."""
        autocast = self._check(view)
        with torch.no_grad():
            answer = take()
        self.count += 1
        self._autocast, self._size = autocast, view.size
        return answer

    # ------------------------------------------------------------------ what subclasses write

    def _take(self, view: View) -> Iterable[Scores]:
        """Take in frame number `self.count`; a list of results, or a generator that computes them."""
        return [work() for work in self._admit(view, self.model.prepare(view))]

    def _admit(self, view: View, prepared: Any) -> list[Pending]:
        """See :meth:`admit`; for models that work in parts, whose streams need no :meth:`_take`."""
        raise NotImplementedError

    def _rest(self) -> Iterable[Scores]:
        """Results of frames that still wait; a list, or a generator."""
        return []

    # ------------------------------------------------------------------ checks

    def _check(self, view: View) -> tuple:
        """Raise if the frame cannot follow those before it; returns the state of autocast."""
        self._require_taken()
        self.model.require_eval()
        check_view(self.model, view.inputs, self.count)
        img = view.inputs["img"]
        if self.count == 0:
            self._folded, self._changes = self.model.folded(), self.model.changes
        autocast = _autocast(img.device.type)
        self._require_unchanged(autocast)
        if img.ndim != 3 or self._size not in (None, view.size):
            raise DataError(
                f"frame {self.count} has shape {tuple(img.shape)}",
                f"({', '.join(map(str, ('C', *(self._size or 'HW'))))}), the size of the frames before it",
                "use one stream per video, or resize the frames to one size",
            )
        return autocast

    def _require_unchanged(self, autocast: tuple) -> None:
        self.require_unchanged()
        if self._autocast not in (None, autocast):
            raise _changed("autocast has changed", self.count)

    def _require_taken(self) -> None:
        if self._untaken:
            raise ConfigError(
                f"the next frame before the results up to frame {self.count - 1} were taken",
                "push() and finish() iterated to their end",
                "loop over what they return",
            )

    def _offered(self, answer: Iterable[Scores], last: bool = False) -> Iterable[Scores]:
        if isinstance(answer, list | tuple):
            return answer
        self._untaken = True
        return self._drain(answer, last)

    @torch.no_grad()
    def _drain(self, answer: Iterable[Scores], last: bool) -> Iterator[Scores]:
        results = iter(answer)
        while True:
            self._require_unchanged(_autocast(self._autocast[0]))  # what comes late is computed now
            if (scores := next(results, None)) is None:
                break
            yield scores
        self._untaken = False
        if last:
            self.reset()


def _autocast(kind: str) -> tuple[str, bool, torch.dtype]:
    """The state of autocast on a kind of device."""
    return kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _changed(what: str, count: int) -> ConfigError:
    return ConfigError(
        f"{what} in the middle of a video, after {count} frames",
        "one model for all frames of a video",
        "call reset() on the stream, or make a new one, and start the video again",
    )
