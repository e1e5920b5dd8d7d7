"""From logits to a label map, without ever holding all classes at full size.

The formula is: resize the logits to the network's input size, resize the result to the size of the original frame
(two bilinear steps; merging them would change numbers), take the best class. Done literally that writes and reads
K full-size maps three times over (200 MB each at 124 classes and 480x853), which a GPU does in four kernels. On a CPU
two shortcuts have the same result:

- The classes are independent until the argmax, so a few at a time pass through all steps while they are in the
  cache, and a running maximum keeps the best class so far. Ties go to the lowest class, as with ``argmax``.
- Bilinear interpolation never leaves the range of the values around a point. A class whose local maximum is
  everywhere below the best local minimum can win nowhere and is not resized at all. A trained network leaves some
  tens of 124 classes per frame, and fewer in a band of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.errors import ConfigError
from mmseg.structures import Size

_MAX_CLASSES = 255  # uint8, and 255 means "ignored"
_GROUP = 4  # classes resized together: at 480x853 they fit in the cache
_BAND = 20  # rows of logits at a time: fewer have more rows that are resized twice, more have more classes that can win
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
    size = tuple(sizes[-1]) if sizes else tuple(logits.shape[-2:])
    small = num_classes <= _GROUP or num_classes * size[0] * size[1] <= _SMALL
    if logits.device.type != "cpu" or small:
        return resize_logits(logits, sizes).argmax(dim=0).to(torch.uint8)
    return _label_map_in_bands(logits, sizes, size)


def _label_map_in_bands(logits: Tensor, sizes: Sequence[Size], size: Size) -> Tensor:
    """:func:`label_map`, band by band of rows where that changes no number: each has fewer classes that can win.

    A band is resized with a row of logits more above and below it. All resizes keep the rows or multiply them by a
    power of two, whose positions are exact, so that the weights are the same wherever a band begins.
    """
    height, factor = logits.shape[1], _row_factor(logits.shape[1], sizes)
    if not factor:
        return _best_classes(logits, sizes, possible_winners(logits, sizes))
    labels = torch.empty(size, dtype=torch.uint8, device=logits.device)
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)
        part, own = logits[:, first:last], slice(top - first, bottom - first)
        part_sizes = [((last - first) * factor, width) for _, width in sizes]
        best = _best_classes(part, part_sizes, possible_winners(part, part_sizes, own))
        labels[top * factor : bottom * factor] = best[own.start * factor : own.stop * factor]
    return labels


def _row_factor(height: int, sizes: Sequence[Size]) -> int:
    """By how much the first resize multiplies the rows, if it is a power of two and no other one changes them; or 0."""
    heights = {size[0] for size in sizes}
    factor = max(heights, default=0) // height
    exact = heights == {height * factor} and factor > 1 and factor & (factor - 1) == 0
    return factor if exact else 0


def _best_classes(logits: Tensor, sizes: Sequence[Size], classes: list[int]) -> Tensor:
    """The best of the `classes` at every pixel, with a running maximum over them."""
    size = tuple(sizes[-1]) if sizes else tuple(logits.shape[-2:])
    best = torch.full(size, -torch.inf, dtype=logits.dtype, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    better = torch.empty(size, dtype=torch.bool, device=logits.device)
    winner = better.view(torch.uint8)  # the same memory: 0 or 1 per pixel
    for group in _groups(classes, len(logits)):
        for label, scores in zip(group, resize_logits(logits[group], sizes)):  # (H, W) each
            torch.gt(scores, best, out=better)
            torch.maximum(best, scores, out=best)
            # A class that wins over earlier ones has a larger number than they, so the larger number is right.
            winner.mul_(label)
            torch.maximum(labels, winner, out=labels)
    return labels


def _groups(classes: list[int], num_classes: int) -> list[list[int]]:
    """`classes` in ascending groups of equal size, filled up with classes that cannot win or have been seen.

    PyTorch picks another kernel, which rounds differently, for some small numbers of channels.
    """
    spare = (label for label in range(num_classes) if label not in set(classes))
    while len(classes) < _GROUP:
        classes = sorted([*classes, next(spare)])
    starts = [min(start, len(classes) - _GROUP) for start in range(0, len(classes), _GROUP)]
    return [classes[start : start + _GROUP] for start in starts]


def possible_winners(logits: Tensor, sizes: Sequence[Size], rows: slice = slice(None)) -> list[int]:
    """The classes, ascending, that may be the best at some pixel after the resizes; the others cannot be.

    Only the pixels whose nearest logit lies in `rows` are looked at.

    A value after the first resize is a weighted mean of the logits at most one position away from its place; each
    further step reaches one position of the map before it farther. While that adds up to no more than half a
    position, everything stays within the 3x3 neighbourhood of the nearest logit. Otherwise, and where the first
    resize does not at least double both sides and little can be saved, all classes are returned.
    """
    num_classes, height, width = logits.shape
    reach = max((sum(side / size[i] for size in sizes[:-1]) for i, side in enumerate((height, width))), default=0.0)
    worthwhile = bool(sizes) and sizes[0][0] >= 2 * height and sizes[0][1] >= 2 * width
    if reach > 0.5 or not worthwhile:
        return list(range(num_classes))
    upper = _local_maximum(logits)
    lower = -_local_maximum(-logits)
    # Interpolation weights are rounded: their sum may miss 1 by a few units in the last place.
    margin = 16 * torch.finfo(logits.dtype).eps * logits.abs().amax()
    hopeless = (upper < lower.amax(dim=0) - margin)[:, rows]  # (K, h, w)
    return torch.nonzero(~hopeless.flatten(1).all(dim=1)).flatten().tolist()


def _local_maximum(x: Tensor) -> Tensor:
    """The maximum over the 3x3 neighbourhood of each position that lies inside the map: (K, h, w) -> (K, h, w)."""
    for dim in (-1, -2):
        if x.shape[dim] == 1:
            continue
        before, after = x.narrow(dim, 0, x.shape[dim] - 1), x.narrow(dim, 1, x.shape[dim] - 1)
        pairs = torch.maximum(before, after)  # (i, i + 1)
        out = x.clone()
        out.narrow(dim, 0, x.shape[dim] - 1).copy_(pairs)
        head = out.narrow(dim, 1, x.shape[dim] - 1)
        torch.maximum(head, pairs, out=head)
        x = out
    return x
