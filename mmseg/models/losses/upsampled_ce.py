"""Cross entropy of upsampled logits without the upsampled logits.

For 124 classes the logits at label size are the largest tensors of a training step. Here they exist for a
few rows at a time: the rows are upsampled, their loss **and** its gradient are computed while they are in
the cache, and only the gradient with respect to the coarse logits is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg.models.layers.precision import full_precision

# Numbers of one slice (classes x rows x columns) of upsampled logits: what fits the cache of a CPU core, and
# what keeps a GPU busy.
_SLICE_NUMBERS = {"cpu": 1 << 19, "cuda": 1 << 25}


@torch.compiler.disable
def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, slice_numbers: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of `logits`, resized bilinearly (align_corners False) to the size of `labels`.

    Ignored pixels contribute 0 and stay in the denominator. Computed in float32 at least, also under autocast.

    Args:
        logits: (n, K, h, w).
        labels: (n, H, W) int64.
        ignore_index: label of pixels without a class.
        slice_numbers: how many upsampled logits may exist at once; by default what suits the device.

    Returns:
        The loss (scalar) and the number of pixels whose argmax equals their label (scalar, float32).
    """
    with full_precision(logits):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        slice_numbers = slice_numbers or _SLICE_NUMBERS.get(logits.device.type, 1 << 22)
        return _UpsampledCrossEntropy.apply(logits, labels, ignore_index, slice_numbers)


class _UpsampledCrossEntropy(torch.autograd.Function):
    """Loss and, in the same slices, its gradient: the loss is a scalar, so backward only has to scale it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int, slice_numbers: int):
        needs_grad = ctx.needs_input_grad[0]
        grad = torch.zeros_like(logits, memory_format=torch.contiguous_format) if needs_grad else None
        loss = logits.new_zeros((), dtype=torch.float64 if logits.device.type != "mps" else torch.float32)
        correct = torch.zeros((), dtype=torch.int64, device=logits.device)
        height, width = labels.shape[-2:]
        rows = max(1, slice_numbers // (logits.shape[1] * width))
        lower, upper, weight = _row_taps(logits, height)
        for i in range(logits.shape[0]):
            for top in range(0, height, rows):
                part = slice(top, min(top + rows, height))
                taps = (lower[part], upper[part], weight[part])
                target = labels[i, part]
                z = _upsample_rows(logits[i], *taps, width)  # (K, rows, W)
                slice_loss, slice_correct = _cross_entropy_(z, target, ignore_index, needs_grad)
                loss += slice_loss
                correct += slice_correct
                if needs_grad:
                    _add_rows_grad(grad[i], z, *taps)
        pixels = labels.numel()
        if needs_grad:
            ctx.save_for_backward(grad.div_(pixels))
        ctx.mark_non_differentiable(correct_float := correct.float())
        return (loss / pixels).to(logits.dtype), correct_float

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, None, None, None


def _row_taps(logits: Tensor, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `height` rows the two rows of `logits` it lies between, and the weight of the second."""
    h, device, dtype = logits.shape[-2], logits.device, logits.dtype
    scale = torch.tensor(h / height, dtype=dtype)
    source = ((torch.arange(height, dtype=dtype) + 0.5) * scale - 0.5).clamp_(min=0)
    lower = source.floor().long().clamp_(max=h - 1)
    upper = (lower + 1).clamp_(max=h - 1)
    return lower.to(device), upper.to(device), (source - lower).to(device)


def _upsample_rows(logits: Tensor, lower: Tensor, upper: Tensor, weight: Tensor, width: int) -> Tensor:
    """Some rows of the upsampled `logits` (K, h, w): first between rows, then along them -> (K, rows, width)."""
    weight = weight[:, None]
    between = logits[:, lower] * (1 - weight) + logits[:, upper] * weight  # (K, rows, w)
    return F.interpolate(between[None], size=(len(lower), width), mode="bilinear", align_corners=False)[0]


def _cross_entropy_(z: Tensor, target: Tensor, ignore_index: int, needs_grad: bool) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of logits `z` (K, rows, W) and number of hits; leaves the gradient in `z`."""
    highest, winner = z.max(0)
    valid = target != ignore_index
    index = torch.where(valid, target, 0)[None]
    z -= highest
    picked = z.gather(0, index)[0]
    total = z.exp_().sum(0)
    loss = torch.where(valid, total.log() - picked, 0.0).sum(dtype=torch.float64)
    if needs_grad:
        z *= torch.where(valid, total.reciprocal(), 0.0)
        z.scatter_add_(0, index, -valid.to(z.dtype)[None])
    return loss, (winner == target).sum()


def _add_rows_grad(grad: Tensor, z: Tensor, lower: Tensor, upper: Tensor, weight: Tensor) -> None:
    """Transpose of :func:`_upsample_rows`: adds the gradient `z` of some rows (K, rows, W) to `grad` (K, h, w)."""
    k, rows, width = z.shape
    between = torch.ops.aten.upsample_bilinear2d_backward(
        z[None], [rows, width], [1, k, rows, grad.shape[-1]], False, None, None
    )[0]  # (K, rows, w)
    weight = weight[:, None]
    grad.index_add_(1, lower, between * (1 - weight))
    grad.index_add_(1, upper, between * weight)
