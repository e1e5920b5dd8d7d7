"""What a model is given: tensors are checked where they come in, for those who call a model without the loops of the
engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError, DataError

_WORDS = {"given": "a mask ('given')", "objects": "object ids ('objects')"}


def require_keys(batch: Any, keys: Sequence[str]) -> None:
    """Raise ConfigError unless a training batch has all of `keys`."""
    missing = [key for key in keys if not isinstance(batch, Mapping) or key not in batch]
    if missing:
        held = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else f"no names, as a {type(batch).__name__}"
        raise ConfigError(
            f"data.train: samples without {missing[0]!r} (they hold {held})",
            " and ".join(keys),
            "let the pipeline load labels and end with PackClip and Collect",
        )


def checked_labels(imgs: Any, labels: Any, channels: int) -> Tensor:
    """The labels of a training batch as int64.

    Args:
        imgs: should be (B, T, C, H, W) floating-point numbers.
        labels: should be (B, T, 1, H, W) whole numbers.
        channels: C.

    Raises:
        DataError: they are not.
    """
    if not _is_float(imgs) or imgs.ndim != 5 or imgs.shape[2] != channels:
        raise DataError(
            f"img of a training batch is {found(imgs)}",
            f"(B, T, {channels}, H, W) normalised floating-point numbers",
            "let the pipeline end with PackClip and Collect",
        )
    whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    expected = (*imgs.shape[:2], 1, *imgs.shape[3:])
    if not whole or labels.shape != expected:
        raise DataError(
            f"gt_semantic_seg of a training batch is {found(labels)} beside an img {tuple(imgs.shape)}",
            f"{expected} whole numbers",
            "give every frame of a clip its label map, of the size of the frame",
        )
    return labels.long()


def check_classes(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise DataError for labels that are neither 0..K-1 nor ignored.

    On CPUs only: elsewhere it would be waited for, and data sets check what they read.
    """
    if labels.device.type != "cpu":
        return
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        raise DataError(
            f"label {int(labels[wrong][0])} in a training batch",
            f"0 to {num_classes - 1} for the {num_classes} classes of the head, {ignore_index} for ignored pixels",
            "correct the labels, or set num_classes of the head",
        )


def check_view(model: torch.nn.Module, inputs: Mapping[str, Any], number: int) -> None:
    """Raise unless a stream of `model` can use the inputs of frame `number`.

    Raises:
        ConfigError: inputs that the model does not look at.
        DataError: ``img`` is no tensor of the type and on the device of the model's weights.
    """
    known = model.view_inputs
    for name in inputs:
        if known is not None and name not in known:
            raise ConfigError(
                f"frame {number} comes with {_WORDS.get(name, repr(name))} for a {type(model).__name__}",
                f"{' and '.join(known)}, which is what it looks at",
                "leave it out, or use a model that takes it",
            )
    img, weight = inputs.get("img"), next(model.parameters(), None)
    if not _is_float(img) or img.layout != torch.strided:
        raise DataError(
            f"frame {number} is {found(img)}",
            "a tensor (C, H, W) of normalised floating-point numbers",
            "normalise the frame as the test pipeline does, or use VideoStream for pictures",
        )
    channels, words = (6, "a frame and its optical flow") if model.takes_flow else (3, "the three colours")
    if known is not None and img.ndim == 3 and len(img) != channels:
        raise DataError(
            f"frame {number} is {found(img)}: {len(img)} channels",
            f"({channels}, H, W): {words}",
            _what_to_do(len(img), channels),
        )
    if weight is None:
        return
    mixed = torch.is_autocast_enabled(img.device.type) if img.device.type != "meta" else False
    if img.device != weight.device or (img.dtype != weight.dtype and not mixed):
        raise DataError(
            f"frame {number} is {found(img)} on {img.device}, the weights are {weight.dtype} on {weight.device}",
            "one type and one device",
            "frame.to(next(model.parameters())), or model.to(...) and a new stream",
        )


def _what_to_do(given: int, wanted: int) -> str:
    """About a frame with another number of channels than that which is wanted."""
    if given > wanted:
        return f"leave out {given - wanted} of them"
    if wanted == 6:
        return "append the picture of its flow to the frame, 3 channels each, as data sets with flow do"
    return "give the frame three colours: repeat a grey one"


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def found(value: Any) -> str:
    """A value in words: shape and type of a tensor, or else its type."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"
