"""The way back: from a model's scores of the views of a frame to what is said about the frame itself.

A label map always, and what else is asked for: the scores it was chosen by, logits, probabilities, confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.errors import ConfigError, nearest
from mmseg.models.base import VideoModel
from mmseg.models.cpu.label_map import label_map, resize_logits
from mmseg.structures import Flipped, Resized, ScoreKind, Scores, Size, Step

Returned = Literal["labels", "scores", "logits", "probabilities", "confidence"]
Geometry = tuple[Size, list[Step]]  # of a view: size of the network input, and what was done to the frame


def check_returns(returns: Collection[str], model: VideoModel, kind: ScoreKind, num_views: int = 1) -> None:
    """Raise ConfigError unless all of `returns` can be had from scores of this kind.

    Args:
        returns: names from :data:`Returned`.
        model: whose scores they are, for messages.
        kind: see :class:`Scores`.
        num_views: of a frame.
    """
    name = type(model).__name__
    for wanted in returns:
        if wanted not in get_args(Returned):
            known = get_args(Returned)
            raise ConfigError(f"returns: {wanted!r}", f"some of {', '.join(known)}", nearest(wanted, known))
        if wanted in ("probabilities", "confidence") and kind == "scores":
            raise ConfigError(
                f"{wanted} of a {name}",
                "a model whose answers are logits or probabilities; this one adds up the masks of its queries, which "
                "orders the classes of a pixel and says nothing about certainty",
                "ask for 'scores', the numbers that the labels are chosen by",
            )
        if wanted == "logits" and (kind != "logits" or num_views > 1):
            found = f"which answers with {kind}" if kind != "logits" else f"which sees each frame in {num_views} views"
            advice = "'scores', the numbers that the labels are chosen by"
            raise ConfigError(
                f"logits of a {name}, {found}",
                "a model whose answers are logits, and no augmentation, under which probabilities are averaged",
                f"ask for {advice}" if kind == "scores" else f"ask for 'probabilities', or for {advice}",
            )


def answer(
    per_view: Sequence[Scores], geometry: Sequence[Geometry], size: Size, returns: Collection[str] = ()
) -> dict[str, Tensor]:
    """What is said about a frame.

    Args:
        per_view: the scores of its views; several of them (augmentation) are averaged, after a softmax where they are
            no probabilities.
        geometry: of the views.
        size: (height, width) of the results.
        returns: what is asked for beside the labels; see :class:`mmseg.structures.Result`.

    Returns:
        ``labels`` (H, W) uint8, the number of the best row of each pixel, and those of `returns`, on the device of
        the scores.
    """
    wanted = set(returns) - {"labels"}
    if not wanted and len(per_view) == 1 and _is_only_resized(geometry[0]):
        return {"labels": label_map(_precise(per_view[0].values), [geometry[0][0], size])}
    total, kind = _at_frame_size(per_view, geometry, size)  # (K, H, W)
    found = {"labels": label_map(total, [])}  # before a division, which could make two values equal
    values = total if len(per_view) == 1 else total.div_(len(per_view))
    if wanted & {"scores", "logits"}:
        found.update(scores=values, logits=values)
    if wanted & {"probabilities", "confidence"}:
        probabilities = values if kind == "probabilities" else values.softmax(dim=0)
        found.update(probabilities=probabilities, confidence=probabilities.amax(dim=0))
    return {name: value for name, value in found.items() if name in {"labels", *wanted}}


def fetched(found: Mapping[str, Tensor]) -> Callable[[], dict[str, np.ndarray]]:
    """Begin to copy tensors from their device; the call of what this returns waits for them."""
    copies = {name: _copied(value) for name, value in found.items()}
    done = None
    if (labels := found["labels"]).is_cuda:
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(labels.device))  # which need not be the device that is current

    def arrays() -> dict[str, np.ndarray]:
        if done is not None:
            done.synchronize()
        # pinned memory is rare: who keeps the results would keep it
        return {name: value.numpy().copy() if value.is_pinned() else value.numpy() for name, value in copies.items()}

    return arrays


def _copied(value: Tensor) -> Tensor:
    """On the CPU: at once, or for a label map of a GPU when all that was given to the GPU before is done."""
    if not value.is_cuda or value.dtype != torch.uint8:
        return value.cpu()
    return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)


def _at_frame_size(per_view: Sequence[Scores], geometry: Sequence[Geometry], size: Size) -> tuple[Tensor, ScoreKind]:
    """(K, H, W), the sum over the views, and what it is a sum of; in memory that no stream looks at."""
    if len(per_view) == 1:
        [scores], [(input_size, steps)] = per_view, geometry
        value = _precise(scores.values)
        if _is_only_resized(geometry[0]):  # as a label map alone is made
            return _own(resize_logits(value, [input_size, size]), scores), scores.kind
        return _own(undo(value, input_size, steps, size), scores), scores.kind
    total = None
    for scores, (input_size, steps) in zip(per_view, geometry, strict=True):
        value = undo(_precise(scores.values), input_size, steps, size)  # (K, H, W)
        value = _own(value, scores) if scores.kind == "probabilities" else value.softmax(dim=0)
        total = value if total is None else total.add_(value)
    return total, "probabilities"


def _own(value: Tensor, scores: Scores) -> Tensor:
    """`value`, copied if it is a part of `scores`, which a stream may go on with."""
    shared = value.untyped_storage().data_ptr() == scores.values.untyped_storage().data_ptr()
    return value.clone() if shared else value


def _is_only_resized(geometry: Geometry) -> bool:
    return all(isinstance(step, Resized) for step in geometry[1])


def _precise(values: Tensor) -> Tensor:
    """At least float32, for interpolation and softmax."""
    return values if values.dtype is torch.float64 else values.float()


def undo(values: Tensor, input_size: Size, steps: Sequence[Step], size: Size) -> Tensor:
    """Scores in the frame's geometry: the recorded steps are undone, last first.

    A run of resizes is undone by one resize to the size before the first of them.

    Args:
        values: (K, h, w), resized to `input_size` first if it is smaller.
        input_size: (height, width) of the network input.
        steps: what was done to the frame.
        size: (height, width) of the result.

    Returns:
        (K, H, W).
    """
    x, pending = _resized(values, input_size), None
    for step in reversed(steps):
        if isinstance(step, Resized):
            pending = step.before
            continue
        x, pending = (x if pending is None else _resized(x, pending)), None
        if isinstance(step, Flipped):
            x = x.flip(-1 if step.direction == "horizontal" else -2)
        else:
            x = x[..., step.top : step.top + step.before[0], step.left : step.left + step.before[1]]
    return _resized(x, size)


def _resized(x: Tensor, size: Size) -> Tensor:
    """Bilinear, half-pixel centres: (K, h, w) -> (K, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
