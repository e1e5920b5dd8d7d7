"""What a training batch shows: the classes of each clip, where they are, and how many of their pixels lie in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg import distributed
from mmseg.errors import DataError

IGNORED = 255


@dataclass
class Targets:
    """What a batch shows.

    Attributes:
        masks: (B, T, n, H, W) of 0 and 1, where the classes of a clip are; ignored pixels are in none of them.
        classes: (B, n) int64 of each clip in ascending order, -1 behind the last.
        counts: number of classes of each clip.
        cells: (B, T, n, h, w) how many pixels of a class lie in the cell of a mask logit, or None.
    """

    masks: Tensor
    classes: Tensor
    counts: list[int]
    cells: Tensor | None = None


def find_targets(labels: Tensor, num_classes: int, num_queries: int, dtype: torch.dtype) -> Targets:
    """The classes of each of the clips `labels` (B, T, H, W), in all processes or in none.

    Args:
        labels: integers, 255 is ignored.
        num_classes: K; a label from K to 254 is an error.
        num_queries: of a clip; each class takes two of them.
        dtype: of the masks.

    Raises:
        DataError: a clip shows more classes than half the queries, or a label that is no class.
    """
    num_clips = len(labels)
    present = torch.zeros(num_clips, 256, dtype=torch.bool, device=labels.device)
    present = present.scatter_(1, labels.flatten(1).long(), True).cpu()[:, :IGNORED]  # (B, 255)
    lists = [row.nonzero()[:, 0] for row in present]
    failure = None
    if bool(present[:, num_classes:].any()):
        failure = DataError(
            f"label {int(present.any(0).nonzero().max())} in a training batch",
            f"0 to {num_classes - 1} for the {num_classes} classes of the head, {IGNORED} for ignored pixels",
            "make model.decode_head.num_classes and the classes of the data agree",
        )
    elif (most := max(map(len, lists))) * 2 > num_queries:
        failure = DataError(
            f"{most} classes in a training clip for {num_queries} queries",
            f"at most {num_queries // 2}: each class takes two queries",
            "raise model.decode_head.transformer_decoder_cfg.num_queries, or train on fewer classes",
        )
    distributed.agree(failure)
    padded = nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1).to(labels.device)  # (B, n)
    masks = labels[:, :, None] == padded[:, None, :, None, None]
    return Targets(masks.to(dtype), padded, [len(of_clip) for of_clip in lists])


def count_in_cells(masks: Tensor, size: Sequence[int]) -> Tensor:
    """How many pixels of masks (B, T, n, H, W) lie in the cells of a grid of `size`: (B, T, n, h, w)."""
    height, width = size
    rows, columns = (nearest_cells(cells, pixels, masks.device) for cells, pixels in zip(size, masks.shape[-2:]))
    by_row = masks.new_zeros(*masks.shape[:3], height, masks.shape[-1]).index_add_(3, rows, masks)
    return masks.new_zeros(*masks.shape[:3], height, width).index_add_(4, columns, by_row)


def nearest_cells(cells: int, pixels: int, device: torch.device) -> Tensor:
    """The cell (pixels,) that torch's nearest enlargement shows in each pixel."""
    numbers = torch.arange(cells, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(numbers, size=pixels, mode="nearest")[0, 0].long()
