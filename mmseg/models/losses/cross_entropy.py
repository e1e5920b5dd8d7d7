"""Cross entropy of upsampled logits, whose gradient is computed while a tile of them is in the cache.

On a CPU a kernel does it (:mod:`mmseg.models.cpu.kernels`) where there is one; elsewhere operators of PyTorch do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg import distributed
from mmseg.errors import ConfigError
from mmseg.models.cpu.kernels import cross_entropy as kernels
from mmseg.models.layers import full_precision
from mmseg.models.layers.compiling import outside_graphs
from mmseg.models.losses.base import PixelLoss, of_labels
from mmseg.models.losses.upsampled import accumulator, all_tiles, by_rows, widened
from mmseg.registry import MODELS

_LOG2_E = math.log2(math.e)


@MODELS.register_module()
class CrossEntropyLoss(PixelLoss):
    """Weighted cross entropy, summed and divided by the number of **all** pixels, ignored ones included.

    Args:
        use_sigmoid: only False (softmax over the classes) exists.
        avg_non_ignore: divide by the number of labelled pixels (in distributed training, of a mean process: each
            labelled pixel of all processes counts the same).
        kwargs: see :class:`~mmseg.models.losses.base.PixelLoss`. Also with `class_weight` the denominator is a number
            of pixels.

    Raises:
        ConfigError: `use_sigmoid` is set.
    """

    own_name = "loss_ce"

    def __init__(self, use_sigmoid: bool = False, avg_non_ignore: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if use_sigmoid:
            raise ConfigError("loss_decode.use_sigmoid=True", "use_sigmoid=False (softmax)", "remove the key")
        self.avg_non_ignore = avg_non_ignore

    def forward(
        self, logits: Tensor, labels: Tensor, ignore_index: int = 255, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`PixelLoss.forward`."""
        if self.class_weight is not None:
            factor = of_labels(self.class_weight, labels, widened(logits))
            weight = factor if weight is None else weight * factor
        total = None
        if self.avg_non_ignore:
            total = distributed.mean((labels != ignore_index).sum()).clamp(min=1)
        loss, correct = upsampled_cross_entropy(logits, labels, ignore_index, weight, total)
        return self.loss_weight * loss, correct


@outside_graphs
def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    total: Tensor | None = None,
    slice_numbers: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of `logits`, resized bilinearly (align_corners False) to the size of `labels`.

    Args:
        logits: (n, K, h, w).
        labels: (n, H, W) int64.
        ignore_index: label of pixels without a class; they contribute 0.
        weight: (n, H, W) factors of the pixels.
        total: what the sum is divided by; default: the number of all pixels.
        slice_numbers: how many upsampled logits may exist at once; by default what suits the device.

    Returns:
        The loss (scalar) and the number of pixels whose argmax equals their label (scalar, float32).
    """
    with full_precision(logits):
        return _CrossEntropy.apply(widened(logits), labels, ignore_index, weight, total, slice_numbers)


class _CrossEntropy(torch.autograd.Function):
    """Loss and, in the same tiles, its gradient: the loss is a scalar, so backward only has to scale it."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        ignore_index: int,
        weight: Tensor | None,
        total: Tensor | None,
        slice_numbers: int | None,
    ) -> tuple[Tensor, Tensor]:
        needs_grad = ctx.needs_input_grad[0]
        if slice_numbers is None and kernels.takes(logits, labels, weight):
            loss, correct, grad = kernels.cross_entropy(logits, labels, ignore_index, weight, needs_grad)
        else:
            loss, correct, grad = _in_tiles(logits, labels, ignore_index, weight, needs_grad, slice_numbers)
        total = labels.numel() if total is None else total
        if needs_grad:
            ctx.save_for_backward(grad.div_(total))
        ctx.mark_non_differentiable(correct := correct.float())
        return (loss / total).to(logits.dtype), correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, None, None, None, None, None


def _in_tiles(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    needs_grad: bool,
    slice_numbers: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Summed loss (scalar, float64), number of hits (scalar, int64), and gradient (n, K, h, w) if it is wanted."""
    coarse = by_rows(logits)
    grad = torch.zeros_like(coarse) if needs_grad else None
    loss, correct = accumulator(logits), torch.zeros((), dtype=torch.int64, device=logits.device)
    for tile in all_tiles(coarse, labels.shape[-2:], slice_numbers):
        z, target = tile.upsample(coarse), labels[tile.place]
        valid = target != ignore_index
        factor = None if weight is None else weight[tile.place]
        tile_loss, tile_correct = _cross_entropy_(z, target, valid, factor, needs_grad)
        loss += tile_loss
        if tile_correct is None:
            tile_correct = (tile.upsample(coarse).argmax(1) == target).sum()
        correct += tile_correct
        if needs_grad:
            tile.add_gradient(grad, z)
    return loss, correct, grad if grad is None else grad.transpose(1, 2)


def _cross_entropy_(
    z: Tensor, target: Tensor, valid: Tensor, factor: Tensor | None, needs_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Summed cross entropy of logits `z` (rows, K, columns), in whose place it leaves the gradient, and number of hits.

    The latter is None where equal logits, of which the first counts, have to be looked at once more.
    """
    highest = z.amax(1, keepdim=True)
    winner = None if z.device.type == "cpu" else z.argmax(1)  # 30 times as slow as amax on a CPU
    z -= highest
    index = torch.where(valid, target, target.clamp(0, z.shape[1] - 1))  # a label that is no class stays an error
    factor = valid.to(z.dtype) if factor is None else torch.where(valid, factor.to(z.dtype), 0.0)  # (rows, columns)
    picked = z.gather(1, index[:, None])[:, 0]
    total = z.mul_(_LOG2_E).exp2_().sum(1)  # a third of the time of exp on CPUs that are not Intel's
    loss = torch.where(valid, (total.log() - picked) * factor, 0.0).sum(dtype=accumulator(z).dtype)
    hits = (picked == 0) & (index == target) if winner is None else winner == target
    unsure = winner is None and _share_the_first_place(z, hits & (total >= 2))
    if needs_grad:
        z *= (factor / total)[:, None]
        z.scatter_add_(1, index[:, None], -factor[:, None])
    return loss, None if unsure else hits.sum()


def _share_the_first_place(shares: Tensor, pixels: Tensor) -> bool:
    """Whether at one of `pixels` (rows, columns) several classes of `shares` (rows, K, columns) are 1, the highest."""
    rows, columns = pixels.nonzero(as_tuple=True)
    return int((shares[rows, :, columns] == 1).sum()) > len(rows)
