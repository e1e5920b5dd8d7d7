"""Upsampled logits without the upsampled logits.

For 124 classes the logits at label size are the largest tensors of a training step. Here they exist for a few rows at
a time: every loss of this folder looks at such slices, and keeps for the backward pass what belongs to the coarse
logits alone. All of it is computed in float32 at least, also under autocast; ``float32_matmul_precision`` of a config
counts for the product that makes rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg.models.layers import full_precision
from mmseg.models.layers.compiling import outside_graphs
from mmseg.models.layers.resize import linear_weights

# Numbers of one slice (classes x rows x columns) of upsampled logits: what fits the cache of a CPU core, and
# what keeps a GPU busy.
_SLICE_NUMBERS = {"cpu": 1 << 19, "cuda": 1 << 25}

# (logits (K, rows, W), labels (rows, W), weights (rows, W) or None) -> a vector
Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Rows(NamedTuple):
    """Some rows of the upsampled logits of one sample, and what they are made of."""

    sample: int
    part: slice  # of the rows at label size
    coarse: slice  # of the rows that they lie between
    weights: Tensor  # (rows, coarse rows)

    def upsample(self, logits: Tensor, width: int) -> Tensor:
        """These rows of `logits` (n, K, h, w), first along the few coarse rows, then between them: (K, rows, width)."""
        coarse = logits[self.sample, :, self.coarse].contiguous()  # (K, c, w)
        wide = F.interpolate(coarse[None], size=(coarse.shape[1], width), mode="bilinear", align_corners=False)[0]
        return self.weights @ wide

    def add_gradient(self, grad: Tensor, z: Tensor) -> None:
        """Transpose of :meth:`upsample`: adds the gradient `z` (K, rows, width) to `grad` (n, K, h, w)."""
        wide = self.weights.t() @ z  # (K, c, width)
        k, rows, width = wide.shape
        grad[self.sample, :, self.coarse] += torch.ops.aten.upsample_bilinear2d_backward(
            wide[None], [rows, width], [1, k, rows, grad.shape[-1]], False, None, None
        )[0]


def all_rows(logits: Tensor, size: tuple[int, int], slice_numbers: int | None = None) -> Iterator[Rows]:
    """The rows of `logits` (n, K, h, w) at `size`, as many together as `slice_numbers` numbers allow."""
    height, width = size
    slice_numbers = slice_numbers or _SLICE_NUMBERS.get(logits.device.type, 1 << 22)
    rows = max(1, slice_numbers // (logits.shape[1] * width))
    weights = linear_weights(logits.shape[-2], height, logits.dtype, logits.device)
    parts = []
    for top in range(0, height, rows):
        part = slice(top, min(top + rows, height))
        coarse = _coarse_rows(part, logits.shape[-2], height)
        parts.append((part, coarse, weights[part, coarse]))
    for sample in range(len(logits)):
        for part in parts:
            yield Rows(sample, *part)


def _coarse_rows(part: slice, coarse_height: int, height: int) -> slice:
    """The coarse rows that the rows `part` of `height` ones lie between, at the borders perhaps one more."""
    first, last = ((row + 0.5) * coarse_height / height - 0.5 for row in (part.start, part.stop - 1))
    return slice(max(0, math.floor(first - 1e-3)), min(coarse_height, math.floor(last + 1e-3) + 2))


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
        measure: gives the sums (m,) of some rows, as differentiable operations on their logits. For the backward pass
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
        for rows in all_rows(logits, labels.shape[-2:], slice_numbers):
            z, target, factor = _slice(rows, logits, labels, weight)
            value = measure(z, target, factor)
            sums = accumulator(logits, len(logits), len(value)) if sums is None else sums
            sums[rows.sample] += value
            correct += (z.argmax(0) == target).sum()
        ctx.mark_non_differentiable(correct := correct.float())
        return sums.to(logits.dtype), correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels, weight = ctx.saved_tensors
        grad = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        for rows in all_rows(logits, labels.shape[-2:], ctx.slice_numbers):
            with full_precision(logits), torch.enable_grad():
                z, target, factor = _slice(rows, logits.detach(), labels, weight)
                value = ctx.measure(z.requires_grad_(), target, factor)
                (grad_z,) = torch.autograd.grad(value, z, grad_sums[rows.sample].to(value.dtype))
            rows.add_gradient(grad, grad_z)
        return grad, None, None, None, None


def _slice(rows: Rows, logits: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (K, rows, W), labels (rows, W) and weights (rows, W) of some rows."""
    factor = None if weight is None else weight[rows.sample, rows.part]
    return rows.upsample(logits, labels.shape[-1]), labels[rows.sample, rows.part], factor


@torch.no_grad()
@outside_graphs
def label_probabilities(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, slice_numbers: int | None = None
) -> Tensor:
    """Probability (n, H, W) of every pixel's label; infinity where it is `ignore_index`. Arguments as above."""
    with full_precision(logits):
        logits = widened(logits)
        found = logits.new_empty(labels.shape)
        for rows in all_rows(logits, labels.shape[-2:], slice_numbers):
            z, target, _ = _slice(rows, logits, labels, None)
            valid = target != ignore_index
            picked = z.softmax(0).gather(0, torch.where(valid, target, 0)[None])[0]
            found[rows.sample, rows.part] = torch.where(valid, picked, torch.inf)
    return found
