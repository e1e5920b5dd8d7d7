"""From logits to a label map, without ever holding all classes at full size.

The formula is: resize the logits to the network's input size, resize the result to the size of the original frame
(two bilinear steps), take the best class. Done literally that writes and reads
K full-size maps three times over (200 MB each at 124 classes and 480x853), which a GPU does in four kernels. On a CPU
the shortcuts have the same result:

- Bilinear interpolation never leaves the range of the values around a point. A class whose local maximum is below the
  best local minimum cannot win there. Of 124 classes a few remain at a position, some tens in a tile of the map, and
  the others are not resized.
- A tile of the classes that remain is resized by two matrix products, with the weights of all resizes in one matrix
  per axis, and its best classes are found while it is in the cache. Ties go to the lowest class, as with ``argmax``.
  The sums are rounded in another order than those of two resizes.
- Kernels, where there are any (:mod:`mmseg.models.cpu.kernels`), do both in small tiles that never leave the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.models.cpu.kernels import label_map as kernels
from mmseg.models.cpu.kernels.library import kernels_for
from mmseg.models.layers import full_precision
from mmseg.models.layers.size_tables import table
from mmseg.structures import Size

_MAX_CLASSES = 255  # uint8, and 255 means "ignored"
_GROUP = 4  # classes resized together: at 480x853 they fit in the cache
_TILE = (10, 18)  # logits of a tile: fewer have fewer classes that can win, more are worth the steps that a tile takes
_SMALL = 2**20  # values that may be held at once, where the shortcuts save nothing


def resize_logits(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Bilinear resizes, one after the other (half-pixel centres): (K, h, w) -> (K, *sizes[-1])."""
    x = logits[None]
    for size in sizes:
        if tuple(x.shape[-2:]) != tuple(size):
            x = F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    return x[0]


def label_map(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    """The argmax over classes of `logits` after the resizes to `sizes`.

    Args:
        logits: (K, h, w) floating point on any device, K at most 255.
        sizes: the (height, width) of each bilinear resize, in order; the last is that of the result.

    Returns:
        (H, W) uint8 on the device of `logits`.

    Raises:
        ConfigError: more classes than a uint8 map can hold.
    """
    num_classes = logits.shape[0]
    if num_classes > _MAX_CLASSES:
        raise ConfigError(
            f"logits of {num_classes} classes", f"at most {_MAX_CLASSES}, label maps are 8-bit", "merge classes"
        )
    if logits.device.type != "cpu":
        return _literal(logits, sizes)
    with full_precision(logits):  # predictions under autocast have their label maps made there, too
        if kernels_for(logits):
            return kernels.label_map(logits, sizes)
        return _label_map_on_cpu(logits, sizes)


def _literal(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    return resize_logits(logits, sizes).argmax(dim=0).to(torch.uint8)


def _label_map_on_cpu(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    """:func:`label_map` by operators of PyTorch."""
    num_classes = len(logits)
    size = tuple(sizes[-1]) if sizes else tuple(logits.shape[-2:])
    small = num_classes <= _GROUP or num_classes * size[0] * size[1] <= _SMALL
    if small or all(tuple(step) == tuple(logits.shape[-2:]) for step in sizes):  # the latter: nothing is resized
        return _literal(logits, sizes)
    axes = _axes(tuple(logits.shape[1:]), tuple(map(tuple, sizes)), logits.dtype)
    if axes is None:
        return _best_classes(logits, sizes)
    if not torch.isfinite(logits.sum()):  # a weight of zero times infinity would be no number
        logits = kernels.finite(logits)
    return _label_map_in_tiles(logits, *axes)


@dataclass(frozen=True)
class _Strip:
    """A range of the pixels along an axis, and what it takes of the logits.

    Attributes:
        pixels: of the result.
        logits: that have a share in them.
        nearest: logits whose next neighbours on both sides are all that one of the pixels is made of.
        weights: (pixels, logits).
    """

    pixels: slice
    logits: slice
    nearest: slice
    weights: Tensor


@table
def _axes(
    size: Size, sizes: tuple[Size, ...], dtype: torch.dtype
) -> tuple[tuple[_Strip, ...], tuple[_Strip, ...]] | None:
    """Strips of rows and of columns, for the resizes of maps of `size` to `sizes`; None where a pixel is made of more
    than three logits along an axis."""
    if dtype not in (torch.float32, torch.float64):
        return None
    axes = [_strips([size[i], *(s[i] for s in sizes)], _TILE[i], dtype) for i in range(2)]
    return None if None in axes else tuple(axes)


def _strips(lengths: list[int], logits_per_strip: int, dtype: torch.dtype) -> tuple[_Strip, ...] | None:
    weights = kernels.resize_weights(lengths)
    shares = weights != 0
    first = shares.int().argmax(dim=1)
    last = lengths[0] - 1 - shares.flip(1).int().argmax(dim=1)
    if (last - first).max() > 2:
        return None
    nearest, weights, strips = (first + last + 1) // 2, weights.to(dtype), []
    number = max(1, round(lengths[0] / logits_per_strip))
    bounds = [i * lengths[-1] // number for i in range(number + 1)]
    for pixels in (slice(*ends) for ends in itertools.pairwise(bounds) if ends[0] < ends[1]):
        logits = slice(int(first[pixels].min()), int(last[pixels].max()) + 1)
        around = slice(int(nearest[pixels].min()), int(nearest[pixels].max()) + 1)
        strips.append(_Strip(pixels, logits, around, weights[pixels, logits].contiguous()))
    return tuple(strips)


def _label_map_in_tiles(logits: Tensor, rows: Sequence[_Strip], columns: Sequence[_Strip]) -> Tensor:
    labels = logits.new_empty(rows[-1].pixels.stop, columns[-1].pixels.stop, dtype=torch.uint8)
    order = torch.arange(len(logits), 0, -1, dtype=logits.dtype)[:, None, None]  # of two equal classes the lower one
    weights = [strip.weights.t().contiguous() for strip in columns]
    # Interpolation weights are rounded: their sum may miss 1 by a few units in the last place.
    margin = 16 * torch.finfo(logits.dtype).eps * max(logits.amax(), -logits.amin())
    for row in rows:
        first = max(row.nearest.start - 1, 0)
        own = slice(row.nearest.start - first, row.nearest.stop - first)
        possible = possible_winners(logits[:, first : row.nearest.stop + 1], margin)[:, own]
        anywhere = possible.view(torch.uint8).amax(dim=1)  # (K, w)
        for column, weight in zip(columns, weights):
            chance = anywhere[:, column.nearest].amax(dim=1)
            classes = chance.nonzero().flatten()
            tile = labels[row.pixels, column.pixels]
            if len(classes) == 1:
                tile.copy_(classes)
                continue
            scores = logits[:, row.logits, column.logits].index_select(0, classes)
            scores = (row.weights @ scores) @ weight  # (n, rows, columns)
            winner = scores.eq_(scores.amax(dim=0))  # 0 or 1; as booleans they would be found one by one
            tile.copy_(len(logits) - winner.mul_(order[classes]).amax(dim=0))
    return labels


def _best_classes(logits: Tensor, sizes: Sequence[Size]) -> Tensor:
    """The best class at every pixel, a few classes at a time, with a running maximum over them."""
    size = tuple(sizes[-1]) if sizes else tuple(logits.shape[-2:])
    best = torch.full(size, -torch.inf, dtype=logits.dtype, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    better = torch.empty(size, dtype=torch.bool, device=logits.device)
    winner = better.view(torch.uint8)  # the same memory: 0 or 1 per pixel
    for group in _groups(len(logits)):
        for label, scores in zip(group, resize_logits(logits[group], sizes)):  # (H, W) each
            torch.gt(scores, best, out=better)
            torch.maximum(best, scores, out=best)
            # A class that wins over earlier ones has a larger number than they, so the larger number is right.
            winner.mul_(label)
            torch.maximum(labels, winner, out=labels)
    return labels


def _groups(num_classes: int) -> list[list[int]]:
    """All classes in ascending groups of equal size, the last one with classes that have been seen.

    PyTorch picks another kernel, which rounds differently, for some small numbers of channels.
    """
    starts = [min(start, num_classes - _GROUP) for start in range(0, num_classes, _GROUP)]
    return [list(range(start, start + _GROUP)) for start in starts]


def possible_winners(logits: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Which classes may be the best somewhere in the 3x3 neighbourhood of a position, (K, h, w) bool.

    The others cannot be, wherever all that is interpolated lies in that neighbourhood.
    """
    best = _local_extreme(logits, torch.minimum).amax(dim=0)
    return _local_extreme(logits, torch.maximum) >= best - margin


def _local_extreme(x: Tensor, choose: Callable[..., Tensor]) -> Tensor:
    """The maximum or minimum over the part of the 3x3 neighbourhood that lies in the map: (K, h, w) -> (K, h, w)."""
    for dim in (-1, -2):
        length = x.shape[dim]
        if length == 1:
            continue
        pairs = choose(x.narrow(dim, 0, length - 1), x.narrow(dim, 1, length - 1))  # (i, i + 1)
        out = torch.empty_like(x)
        for end, place in ((0, 0), (length - 2, length - 1)):
            out.narrow(dim, place, 1).copy_(pairs.narrow(dim, end, 1))
        if length > 2:
            inside = (pairs.narrow(dim, i, length - 2) for i in range(2))
            choose(*inside, out=out.narrow(dim, 1, length - 2))
        x = out
    return x
