"""What travels between the rooms: videos, frames, views, scores and results. Data, with no behaviour beyond themselves.

A *frame* is what was read, a *view* what the network sees of it, *scores* are the network's answer in the geometry of
the view, a *result* is the answer in the geometry of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Video:
    """One video of a data set, a file or a camera."""

    index: int  # position in the data set
    name: str  # unique in the data set; results are filed under it
    num_frames: int | None  # None: not known beforehand (a camera, some files)

    @property
    def truths(self) -> Sequence[int] | None:
        """Numbers of the frames that have a truth; None: not known beforehand."""
        return None


@dataclass
class Frame:
    """One frame of a video, as read.

    Attributes:
        number: position in the video, counted from 0.
        name: what its result is called: the stem of its file.
        image: (H, W, 3) uint8 BGR; None once it has been dropped because its result is late.
        flow: (H, W, 3) uint8 coloured optical flow, for models that take it.
        given: (H, W) integer object ids that are shown to the model, 0 for background.
        objects: the ids that `given` speaks about; None means those that occur in it.
        truth: (H, W) uint8 labels for the metrics; the model never sees it.
        wanted: whether there is to be a result.
        size: (height, width) of the result; None means that of the image.
        path: file that it was read from, for messages.
        reload: reads `image` again, for writers that show it beside a late result; None where that is not possible.
    """

    number: int
    name: str
    image: np.ndarray | None
    flow: np.ndarray | None = None
    given: np.ndarray | None = None
    objects: tuple[int, ...] | None = None
    truth: np.ndarray | None = None
    wanted: bool = True
    size: Size | None = None
    path: str | None = None
    reload: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    def picture(self) -> np.ndarray:
        """The image, read again if it has been dropped."""
        return self.image if self.image is not None else self.reload()


@dataclass(frozen=True)
class Resized:
    """The picture was resized, bilinearly; `before` is its size before that."""

    before: Size


@dataclass(frozen=True)
class Flipped:
    """The picture was mirrored, left to right or top to bottom."""

    before: Size
    direction: Literal["horizontal", "vertical"] = "horizontal"


@dataclass(frozen=True)
class Padded:
    """The picture was enlarged; its upper left corner came to (top, left)."""

    before: Size
    top: int = 0
    left: int = 0


Step = Resized | Flipped | Padded


@dataclass
class View:
    """What the network sees of one frame: one scale, mirrored or not.

    Attributes:
        number: of the frame.
        inputs: ``img`` (C, h, w) float32; ``given`` (h, w) int64 and ``objects``, ids, where a mask is given.
        steps: what was done to the frame, in order.
        wanted: whether there is to be a result.
    """

    number: int
    inputs: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    wanted: bool = True

    @property
    def size(self) -> Size:
        """(h, w) of the network input."""
        return tuple(self.inputs["img"].shape[-2:])


ScoreKind = Literal["logits", "scores", "probabilities"]


@dataclass
class Scores:
    """A stream's answer for one frame, in the geometry of its view.

    Attributes:
        number: of the frame.
        values: (K, h, w), the best row of each pixel wins; None: nothing to say about this frame (no mask given yet).
        kind: "logits" and "scores" (not normalised, no confidence) pass a softmax before views are averaged,
            "probabilities" do not.
        ids: row -> object id, row 0 being background 0; None: row k is class k.
    """

    number: int
    values: Tensor | None
    kind: ScoreKind = "logits"
    ids: tuple[int, ...] | None = None


@dataclass
class Result:
    """The answer for one frame, in the geometry of the frame.

    Attributes:
        video: which video; None for frames of no video in particular.
        frame: the frame; its image may have been dropped (:meth:`Frame.picture`).
        labels: (H, W) uint8 class numbers or object ids; None: nothing to say about this frame.
        ids: the ids that may occur in `labels`, background 0 first; row k of what follows is about ``ids[k]``. None for
            classes: row k is about class k.
        scores: (K, H, W) float32 (float64 of a model in double precision), the best row of a pixel is its label; with
            augmentation the mean probabilities. This and what follows: None unless asked for.
        logits: (K, H, W), whose softmax are the probabilities; of models that give logits, without augmentation.
        probabilities: (K, H, W), rows of a pixel add up to 1; of models that give logits or probabilities.
        confidence: (H, W), the largest probability of a pixel.
    """

    video: Video | None
    frame: Frame
    labels: np.ndarray | None
    ids: tuple[int, ...] | None = None
    scores: np.ndarray | None = None
    logits: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    confidence: np.ndarray | None = None


@dataclass(frozen=True)
class Progress:
    """How far a training is when a sample is seen; for data sets with a curriculum. A function of its position alone.

    Attributes:
        iteration: number of the update, counted from 0.
        max_iters: number of updates of the whole run.
        epoch: passes over the data set that are complete.
        epochs: passes that the whole run begins.
    """

    iteration: int
    max_iters: int
    epoch: int
    epochs: int

    @classmethod
    def at(cls, position: int, num_items: int, batch_size: int, max_iters: int) -> Progress:
        """That of a sample of a run over `num_items` with `batch_size` samples per update, those of all processes."""
        epochs = -(-max_iters * batch_size // num_items)
        return cls(position // batch_size, max_iters, position // num_items, epochs)
