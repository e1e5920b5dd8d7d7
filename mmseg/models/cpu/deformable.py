"""Deformable attention on a CPU: rows of channels are gathered and added up in one pass.

``grid_sample`` reads one channel at a time from many places far apart. Here the channels of a head at a position are
one row of a table, a sample is a weighted sum of four rows, and all samples of a query are added up by
``embedding_bag``, which never writes one of them down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_QUERIES = 512  # whose rows and shares exist at a time


def gathers_rows(value: Tensor) -> bool:
    """Whether :func:`sample_rows` is the way to go: float32 on CPU, no graph, no tracing."""
    return (
        value.device.type == "cpu"
        and value.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


@dataclass
class FramedMaps:
    """Maps of several levels with zeros around them, in which points outside find the zeros that they stand for.

    A map of h x w is h + 2 lines of w + 1 positions: the zero after the end of a line is the one before the next.

    Attributes:
        table: (n, positions, heads, d).
        bounds: width, height, length of a line and first position of each level, (levels, 4).
    """

    table: Tensor
    bounds: Tensor


def sample_rows(maps: FramedMaps, pixels: Tensor, weights: Tensor) -> Tensor:
    """See :func:`mmseg.models.layers.deformable_attention.sample`."""
    n, length, heads, _, points = weights.shape
    dim = maps.table.shape[-1]
    bounds = maps.bounds.repeat_interleave(points, 0).t()  # (4, levels * points)
    out = pixels.new_empty(n, length, heads, dim)
    for i in range(n):
        rows_of_item = maps.table[i].view(-1, dim)
        for start in range(0, length, _QUERIES):
            part = slice(start, start + _QUERIES)
            corners = _corners(pixels[i, part].flatten(2, 3), weights[i, part].flatten(2), bounds)
            total = None
            for rows, shares in corners:
                bags = F.embedding_bag(
                    rows.flatten(0, 1), rows_of_item, mode="sum", per_sample_weights=shares.flatten(0, 1)
                )
                total = bags if total is None else total.add_(bags)
            out[i, part] = total.view(-1, heads, dim)
    return out.flatten(2)


def framed(value: Tensor, sizes: Sequence[tuple[int, int]]) -> FramedMaps:
    """The maps `value` (n, S, heads, d) of the `sizes` (h, w), one after the other."""
    n, _, *channels = value.shape
    counts = [(h + 2) * (w + 1) for h, w in sizes]
    table = value.new_zeros(n, sum(counts) + sizes[-1][1] + 3, *channels)
    starts = []
    for (h, w), part in zip(sizes, value.split([h * w for h, w in sizes], dim=1)):
        first = sum(counts[: len(starts)]) + w + 1
        table[:, first : first + h * (w + 1)].unflatten(1, (h, w + 1))[:, :, 1:] = part.unflatten(1, (h, w))
        starts.append(first + 1)
    bounds = [[w, h, w + 1, start] for (h, w), start in zip(sizes, starts)]
    return FramedMaps(table, torch.tensor(bounds, dtype=torch.float32))


def _corners(pixels: Tensor, weights: Tensor, bounds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For the four neighbours of every sample its row in the table and its share, (L, heads, samples) each.

    Args:
        pixels: (L, heads, samples, 2), x first.
        weights: (L, heads, samples).
        bounds: width, height, length of a line and first position of the level of each sample, (4, samples).
    """
    width, height, line, start = bounds
    heads = weights.shape[1]
    x, y = (pixels[..., axis].clamp(min=-1).minimum(bound) for axis, bound in ((0, width), (1, height)))
    left, top = x.floor(), y.floor()
    x, y = x.sub_(left), y.sub_(top)
    head = torch.arange(heads, dtype=torch.float32)[:, None]
    upper = torch.addcmul(left, top, line).add_(start).mul_(heads).add_(head)  # exact: far below 2^24
    upper = upper.int().clamp_(min=0)  # any row where a position is NaN: so are its shares
    lower = upper + (line * heads).int()
    below = weights * y
    above = weights - below
    below_right, above_right = below * x, above * x
    return [
        (upper, above - above_right),
        (upper + heads, above_right),
        (lower, below - below_right),
        (lower + heads, below_right),
    ]
