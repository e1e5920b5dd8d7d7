"""Cross entropy of resized logits by the kernel of ``cross_entropy.cpp``.

As an operator of PyTorch, so that fake tensors and dispatch modes see it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmseg.models.cpu.kernels.library import Kernel, kernels_for
from mmseg.models.layers.resize import linear_weights
from mmseg.models.layers.size_tables import table

_LEAST_CLASSES = 16  # of one vector of the widest

_bands = Kernel("cross_entropy_bands", "i", integer=True)
_memory_of_thread = Kernel("cross_entropy_memory", "i", integer=True)
_cross_entropy = Kernel("cross_entropy", "ppppppp" + "iiiiii" + "i" + "pppp" + "i")

_operators = torch.library.Library("mmseg", "FRAGMENT")
_operators.define(
    "cross_entropy(Tensor logits, Tensor labels, Tensor? weight, int ignore_index, bool wants_grad,"
    " Tensor row_firsts, Tensor row_weights, Tensor column_firsts, Tensor column_weights) -> (Tensor, Tensor, Tensor)"
)


class _Axis(NamedTuple):
    """How pixels along an axis are made of its logits."""

    firsts: Tensor  # (pixels,) int64: the first logit of each, not falling, and never the last one
    weights: Tensor  # (pixels, 2): of that logit and of the next


def takes(logits: Tensor, labels: Tensor, weight: Tensor | None) -> bool:
    """Whether :func:`cross_entropy` is for these; otherwise PyTorch's operators are, also for what is wrong."""
    others = [labels] if weight is None else [labels, weight]
    return (
        kernels_for(logits) is not None
        and logits.ndim == 4
        and logits.shape[1] >= _LEAST_CLASSES
        and min(logits.shape[2:]) >= 2
        and labels.dtype == torch.int64
        and labels.numel() > 0
        and len(labels) == len(logits)
        and all(x.ndim == 3 and x.shape == labels.shape and x.device == logits.device for x in others)
    )


def cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, weight: Tensor | None, wants_grad: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sum over all pixels of the cross entropy of resized logits, and its gradient.

    Args:
        logits: (n, K, h, w) float32, resized bilinearly to the size of the labels; best stored channels last.
        labels: (n, H, W) int64.
        ignore_index: label of pixels that contribute nothing.
        weight: (n, H, W) factors of the pixels.
        wants_grad: whether the gradient is wanted.

    Returns:
        The sum (scalar, float64), the number of pixels whose argmax equals their label (scalar, int64), and
        the gradient (n, K, h, w), channels last. None of them depends on the number of threads.

    Raises:
        RuntimeError: a label that is neither a class nor `ignore_index`.
    """
    axes = *_axis(logits.shape[2], labels.shape[1]), *_axis(logits.shape[3], labels.shape[2])
    by_pixel = logits.permute(0, 2, 3, 1).contiguous()  # (n, h, w, K)
    loss, hits, grad = torch.ops.mmseg.cross_entropy(by_pixel, labels, weight, ignore_index, wants_grad, *axes)
    return loss, hits, grad.permute(0, 3, 1, 2) if wants_grad else None


@table
def _axis(length: int, resized: int) -> _Axis:
    weights = linear_weights(length, resized, torch.float64)
    firsts = (weights != 0).int().argmax(1).clamp(max=length - 2)
    pairs = firsts[:, None] + torch.arange(2, device="cpu")
    return _Axis(firsts, weights.gather(1, pairs).float())


def _cross_entropy_on_cpu(
    logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, wants_grad: bool, *axes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (n, h, w, classes), threads = logits.shape, torch.get_num_threads()
    labels = labels.contiguous()
    weight = None if weight is None else weight.to(logits.dtype).contiguous()
    grad = torch.zeros_like(logits) if wants_grad else logits.new_empty(0)
    losses = logits.new_empty(n * _bands(h), dtype=torch.float64)
    hits = torch.empty_like(losses, dtype=torch.int64)
    memory = logits.new_empty(threads * _memory_of_thread(classes))
    given = [None if x is None else x.data_ptr() for x in (logits, labels, weight, *axes)]
    made = [x.data_ptr() for x in (losses, hits, memory)]
    grad_at = grad.data_ptr() if wants_grad else None
    _cross_entropy(*given, n, h, w, classes, *labels.shape[1:], ignore_index, grad_at, *made, threads)
    if hits.amin() < 0:
        wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
        raise RuntimeError(f"label {wrong[0].item()} is out of bounds for {classes} classes")
    return losses.sum(), hits.sum(), grad


_operators.impl("cross_entropy", _cross_entropy_on_cpu, "CPU")


@torch.library.register_fake("mmseg::cross_entropy", lib=_operators)
def _cross_entropy_shapes(
    logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, wants_grad: bool, *axes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    loss = logits.new_empty((), dtype=torch.float64)
    return loss, loss.to(torch.int64), torch.empty_like(logits) if wants_grad else logits.new_empty(0)
