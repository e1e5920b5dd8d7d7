"""Upsampled logits without the upsampled logits.

For 124 classes the logits at label size are the largest tensors of a training step. Here they exist in small tiles, one
at a time: every loss of this folder looks at such slices, and keeps for the backward pass what belongs to the coarse
logits alone. All of it is computed in float32 at least, also under autocast; ``float32_matmul_precision`` of a config
counts for the products that make a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg.models.layers import full_precision
from mmseg.models.layers.compiling import outside_graphs
from mmseg.models.layers.resize import linear_weights

# Numbers of one slice (classes x rows x columns) of upsampled logits: what fits the cache of a CPU core, and
# what keeps a GPU busy.
_SLICE_NUMBERS = {"cpu": 3 << 17, "cuda": 1 << 25}

_WHOLE = 64  # rows of full width that fit into a slice: then there is nothing to gain from narrower ones
_LEAST = 32  # columns of a tile, or a multiple of them: whole vectors
_RATIO = 3  # columns to rows: it is rows that the larger one of the two products mixes

# (logits (K, rows, columns), labels (rows, columns), weights (rows, columns) or None) -> a vector
Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Tile(NamedTuple):
    """A rectangle of the upsampled logits of one sample, and what it is made of."""

    sample: int
    rows: slice  # at label size
    columns: slice
    coarse_rows: slice  # that they lie between
    coarse_columns: slice
    row_weights: Tensor  # (rows, coarse rows)
    column_weights: Tensor  # (columns, coarse columns)

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Of the tile in a tensor (n, H, W)."""
        return self.sample, self.rows, self.columns

    def upsample(self, coarse: Tensor) -> Tensor:
        """These pixels of `coarse` (n, h, K, w), by two products: (rows, K, columns)."""
        part = coarse[self.sample, self.coarse_rows, :, self.coarse_columns]  # (r, K, c)
        wide = part.flatten(0, 1) @ self.column_weights.t()
        return (self.row_weights @ wide.view(len(part), -1)).view(len(self.row_weights), -1, wide.shape[-1])

    def add_gradient(self, grad: Tensor, z: Tensor) -> None:
        """Transpose of :meth:`upsample`: adds the gradient `z` (rows, K, columns) to `grad` (n, h, K, w)."""
        wide = self.row_weights.t() @ z.flatten(1)  # (r, K * columns)
        part = wide.view(-1, z.shape[-1]) @ self.column_weights
        grad[self.sample, self.coarse_rows, :, self.coarse_columns] += part.view(wide.shape[0], z.shape[1], -1)


def by_rows(logits: Tensor) -> Tensor:
    """(n, K, h, w) -> contiguous (n, h, K, w), and back."""
    return logits.transpose(1, 2).contiguous()


def all_tiles(coarse: Tensor, size: tuple[int, int], slice_numbers: int | None = None) -> Iterator[Tile]:
    """The pixels of `coarse` (n, h, K, w) at `size`, as many together as `slice_numbers` numbers allow."""
    slice_numbers = slice_numbers or _SLICE_NUMBERS.get(coarse.device.type, 1 << 22)
    pixels = max(1, slice_numbers // coarse.shape[2])
    wide = max(_LEAST, math.isqrt(_RATIO * pixels) // _LEAST * _LEAST)
    columns = size[1] if pixels >= _WHOLE * size[1] else min(size[1], wide)
    rows = max(1, pixels // columns)
    down, across = (
        list(_parts(linear_weights(length, resized, coarse.dtype, coarse.device), count))
        for length, resized, count in ((coarse.shape[1], size[0], rows), (coarse.shape[3], size[1], columns))
    )
    for sample in range(len(coarse)):
        for part, coarse_rows, row_weights in down:
            for strip, coarse_columns, column_weights in across:
                yield Tile(sample, part, strip, coarse_rows, coarse_columns, row_weights, column_weights)


def _parts(weights: Tensor, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """A resized line, `count` pixels at a time: which, the coarse ones that they lie between, and their weights."""
    resized, length = weights.shape
    for start in range(0, resized, count):
        part = slice(start, min(start + count, resized))
        coarse = _between(part, length, resized)
        yield part, coarse, weights[part, coarse].contiguous()


def _between(part: slice, length: int, resized: int) -> slice:
    """The pixels of a line that those `part` of the `resized` ones lie between, at the borders perhaps one more."""
    first, last = ((pixel + 0.5) * length / resized - 0.5 for pixel in (part.start, part.stop - 1))
    return slice(max(0, math.floor(first - 1e-3)), min(length, math.floor(last + 1e-3) + 2))


def widened(logits: Tensor) -> Tensor:
    """`logits` in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def accumulator(logits: Tensor, *shape: int) -> Tensor:
    """Zeros to add up the values of many pixels in."""
    return logits.new_zeros(shape, dtype=torch.float64 if logits.device.type != "mps" else torch.float32)


@outside_graphs
def pixel_sums(
    logits: Tensor, labels: Tensor, measure: Measure, weight: Tensor | None = None, slice_numbers: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of every sample, with gradients, of what `measure` makes of the upsampled logits.

    Args:
        logits: (n, K, h, w), resized bilinearly (align_corners False) to the size of the labels.
        labels: (n, H, W) int64.
        measure: gives the sums (m,) of some pixels, as differentiable operations on their logits. For the backward pass
            it is called once more.
        weight: (n, H, W) of every pixel, for `measure`.
        slice_numbers: how many upsampled logits may exist at once; by default what suits the device.

    Returns:
        The sums (n, m) and the number of pixels whose argmax equals their label (scalar, float32).
    """
    with full_precision(logits):
        return _PixelSums.apply(widened(logits), labels, weight, measure, slice_numbers)


class _PixelSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor | None, measure: Measure, slice_numbers: int | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, labels, weight)
        ctx.measure, ctx.slice_numbers = measure, slice_numbers
        sums, correct = None, torch.zeros((), dtype=torch.int64, device=logits.device)
        coarse = by_rows(logits)
        for tile in all_tiles(coarse, labels.shape[-2:], slice_numbers):
            z, target, factor = _slice(tile, coarse, labels, weight)
            value = measure(z, target, factor)
            sums = accumulator(logits, len(logits), len(value)) if sums is None else sums
            sums[tile.sample] += value
            correct += (z.argmax(0) == target).sum()
        ctx.mark_non_differentiable(correct := correct.float())
        return sums.to(logits.dtype), correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels, weight = ctx.saved_tensors
        coarse = by_rows(logits.detach())
        grad = torch.zeros_like(coarse)
        for tile in all_tiles(coarse, labels.shape[-2:], ctx.slice_numbers):
            with full_precision(logits), torch.enable_grad():
                z, target, factor = _slice(tile, coarse, labels, weight)
                value = ctx.measure(z.requires_grad_(), target, factor)
                (grad_z,) = torch.autograd.grad(value, z, grad_sums[tile.sample].to(value.dtype))
            tile.add_gradient(grad, by_rows(grad_z[None])[0])
        return grad.transpose(1, 2), None, None, None, None


def _slice(tile: Tile, coarse: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (K, rows, columns), labels and weights (rows, columns) of a tile."""
    factor = None if weight is None else weight[tile.place]
    return tile.upsample(coarse).transpose(0, 1).contiguous(), labels[tile.place], factor


@torch.no_grad()
@outside_graphs
def label_probabilities(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, slice_numbers: int | None = None
) -> Tensor:
    """Probability (n, H, W) of every pixel's label; infinity where it is `ignore_index`. Arguments as above."""
    with full_precision(logits):
        coarse = by_rows(widened(logits))
        found = coarse.new_empty(labels.shape)
        for tile in all_tiles(coarse, labels.shape[-2:], slice_numbers):
            z, target, _ = _slice(tile, coarse, labels, None)
            valid = target != ignore_index
            picked = z.softmax(0).gather(0, torch.where(valid, target, 0)[None])[0]
            found[tile.place] = torch.where(valid, picked, torch.inf)
    return found
