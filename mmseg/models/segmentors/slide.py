"""Sliding windows: a frame larger than the network was trained on is seen in overlapping crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.structures import Size


def window_boxes(size: Size, crop_size: Size, stride: Size) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of the windows of a frame, row by row.

    Windows start every `stride` pixels; the last ones are moved back inside the frame. A frame smaller than the window
    is one window.
    """
    spans = []
    for side, crop, step in zip(size, crop_size, stride):
        ends = [min(step * i + crop, side) for i in range(max(side - crop + step - 1, 0) // step + 1)]
        spans.append([(max(end - crop, 0), end) for end in ends])
    return [(*rows, *columns) for rows in spans[0] for columns in spans[1]]


def slide(predict: Callable[[Tensor], Tensor], img: Tensor, crop_size: Size, stride: Size) -> Tensor:
    """Mean of the logits of all windows that cover a pixel.

    Args:
        predict: from windows (n, C, h, w) to logits of their size (n, K, h, w).
        img: (C, H, W).
        crop_size, stride: of the windows, (height, width).

    Returns:
        (K, H, W). All windows of the frame pass the network as one batch.
    """
    boxes = window_boxes(tuple(img.shape[-2:]), crop_size, stride)
    logits = predict(torch.stack([img[:, top:bottom, left:right] for top, bottom, left, right in boxes]))
    exact = torch.promote_types(logits.dtype, torch.float32)  # halves would lose digits in the sum
    total = logits.new_zeros(logits.shape[1], *img.shape[-2:], dtype=exact)
    cover = total.new_zeros(img.shape[-2:])
    for window, (top, bottom, left, right) in zip(logits, boxes):
        total[:, top:bottom, left:right] += window
        cover[top:bottom, left:right] += 1
    return total / cover


def slide_sizes(test_cfg: Mapping[str, Any]) -> tuple[Size, Size]:
    """``crop_size`` and ``stride`` of ``test_cfg=dict(mode='slide', crop_size=(h, w), stride=(h, w))``.

    Raises:
        ConfigError: one is missing or no pair of positive numbers, or windows would leave pixels out.
    """
    sizes = [_pair(test_cfg, key) for key in ("crop_size", "stride")]
    crop_size, stride = sizes
    if stride[0] > crop_size[0] or stride[1] > crop_size[1]:
        raise ConfigError(
            f"model.test_cfg: stride {stride} with crop_size {crop_size}",
            "a stride of at most the window",
            "windows must cover the frame: lower the stride",
        )
    return crop_size, stride


def _pair(test_cfg: Mapping[str, Any], key: str) -> Size:
    value = test_cfg.get(key)
    fits = isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
    if not fits:
        raise ConfigError(
            f"model.test_cfg.{key} = {value!r} with mode='slide'",
            "(height, width) above 0",
            f"write test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)), {key} included",
        )
    return int(value[0]), int(value[1])
