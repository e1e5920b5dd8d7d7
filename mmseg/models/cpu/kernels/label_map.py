"""Label maps by the kernel of ``label_map.cpp``.

As an operator of PyTorch, so that fake tensors and dispatch modes see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.kernels.library import Kernel
from mmseg.models.layers.size_tables import table
from mmseg.structures import Size

_columns_of_tile = Kernel("label_map_columns_of_tile", "", integer=True)
_memory_of_thread = Kernel("label_map_memory", "iiii", integer=True)
_label_map = Kernel("label_map", "pppppp" + "iiiiiii" + "pi", integer=True)

_operators = torch.library.Library("mmseg", "FRAGMENT")
_operators.define(
    "label_map(Tensor logits, Tensor row_starts, Tensor row_weights, Tensor column_starts, Tensor column_weights,"
    " int width) -> Tensor"
)


class _Windows(NamedTuple):
    """How windows of neighbouring pixels along an axis are made of its logits."""

    starts: Tensor  # (windows,) int64: the first logit of each, not falling
    weights: Tensor  # (windows, span, pixels): of that logit and of those behind it


def label_map(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    """The argmax over classes of `logits` after the bilinear resizes to `sizes`.

    Args:
        logits: (K, h, w) float32, K at most 255.
        sizes: (height, width) of each resize, in order.

    Returns:
        (H, W) uint8; of equal classes the lowest.
    """
    rows, columns = ((logits.shape[1 + i], *(size[i] for size in sizes)) for i in range(2))
    windows = *_windows(rows, 1), *_windows(columns, _columns_of_tile())
    return torch.ops.mmseg.label_map(logits, *windows, columns[-1])


def resize_weights(lengths: Sequence[int]) -> Tensor:
    """Linear resizes of an axis as one matrix, from the first of `lengths` to the last: (pixels, logits) float64."""
    weights = torch.eye(lengths[0], dtype=torch.float64, device="cpu")  # whatever the default device is
    for length in lengths[1:]:
        if length != len(weights):
            weights = F.interpolate(weights.t()[None], size=length, mode="linear", align_corners=False)[0].t()
    return weights


def finite(logits: Tensor) -> Tensor:
    """`logits` of which weighted sums are finite: what is no number is never the best, infinities are large numbers."""
    most = torch.finfo(logits.dtype).max / 4
    return logits.nan_to_num(nan=-most).clamp(-most, most)


@table
def _windows(lengths: tuple[int, ...], pixels: int) -> _Windows:
    weights = resize_weights(lengths)
    logits, number = lengths[0], -(-lengths[-1] // pixels)
    weights = F.pad(weights, (0, 0, 0, number * pixels - lengths[-1])).unflatten(0, (number, pixels))
    shares = (weights != 0).any(dim=1).int()  # (windows, logits)
    first, last = shares.argmax(dim=1), logits - 1 - shares.flip(1).argmax(dim=1)
    span = int((last - first).max()) + 1
    starts = first.clamp(max=logits - span)
    taken = starts[:, None] + torch.arange(span, device="cpu")  # (windows, span)
    weights = weights.transpose(1, 2).gather(1, taken[:, :, None].expand(-1, -1, pixels))
    return _Windows(starts, weights.float().contiguous())


def _label_map_on_cpu(
    logits: Tensor, row_starts: Tensor, row_weights: Tensor, column_starts: Tensor, column_weights: Tensor, width: int
) -> Tensor:
    (classes, *size), height, threads = logits.shape, len(row_starts), torch.get_num_threads()
    labels = logits.new_empty(height, width, dtype=torch.uint8)
    memory = logits.new_empty(threads * _memory_of_thread(classes, *size, len(column_starts)))
    tables = [x.data_ptr() for x in (row_starts, row_weights, column_starts, column_weights)]
    sizes = classes, *size, row_weights.shape[1], column_weights.shape[1], height, width

    def is_made_of(x: Tensor) -> bool:
        return _label_map(x.data_ptr(), *tables, labels.data_ptr(), *sizes, memory.data_ptr(), threads)

    logits = logits.contiguous()
    if not is_made_of(logits):
        is_made_of(finite(logits))
    return labels


_operators.impl("label_map", _label_map_on_cpu, "CPU")


@torch.library.register_fake("mmseg::label_map", lib=_operators)
def _label_map_shape(logits: Tensor, row_starts: Tensor, *tables: Tensor | int) -> Tensor:
    return logits.new_empty(len(row_starts), tables[-1], dtype=torch.uint8)
