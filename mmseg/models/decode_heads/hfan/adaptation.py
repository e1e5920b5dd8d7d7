"""Feature adaptation (HFAN, section 3.3): how much of the frame and how much of the flow, per position and channel.

In both branches the convolution has a ReLU of its own, so that what a norm sees is never negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.bfloat16 import scale_and_shift
from mmseg.models.decode_heads.hfan.layers import Affine, ConvReLU
from mmseg.models.layers.norms import norm_affine


def local_branch(channels: int, inner: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C, h, w), every position by itself."""
    return nn.Sequential(
        ConvReLU(channels, inner),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        ConvReLU(inner, channels),
        nn.BatchNorm2d(channels),
    )


def pooled_branch(channels: int, inner: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C, 1, 1)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *local_branch(channels, inner))


def adapt(im: Tensor, fw: Tensor, local: Tensor, pooled: Tensor) -> Tensor:
    """``2 w im + 2 (1 - w) fw`` with ``w = sigmoid(local + pooled)``; all (B, C, h, w), `pooled` (B, C, 1, 1)."""
    weight = (local + pooled).sigmoid()
    return 2 * im * weight + 2 * fw * (1 - weight)


class FoldedBranch(NamedTuple):
    """A branch in eval mode, on tokens: linear, ReLU, affine, ReLU, linear, ReLU, affine."""

    reduce: Affine
    scale: Tensor  # (c,)
    shift: Tensor  # (c,)
    expand: Affine
    out_scale: Tensor  # (C,)
    out_shift: Tensor  # (C,)

    @classmethod
    def of(cls, layers: nn.Sequential) -> FoldedBranch:
        """The branch of :func:`local_branch` or :func:`pooled_branch`."""
        reduce, norm, _, expand, out_norm = layers[-5:]
        return cls(reduce.fold(), *norm_affine(norm), expand.fold(), *norm_affine(out_norm))

    def hidden(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, L, C), before the last affine step."""
        x = F.relu(self.reduce(tokens), inplace=True)
        x = F.relu(scale_and_shift(x, self.scale, self.shift), inplace=True)
        return F.relu(self.expand(x), inplace=True)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(n, L, C) -> (n, L, C)."""
        return scale_and_shift(self.hidden(tokens), self.out_scale, self.out_shift)


def folded_adapt(im: Tensor, fw: Tensor, pooled: Tensor, local: FoldedBranch) -> Tensor:
    """:func:`adapt` on tokens (B, L, C), `pooled` (B, 1, C) being the result of its branch."""
    weight = scale_and_shift(local.hidden(im + fw), local.out_scale, local.out_shift + pooled).sigmoid_()
    return torch.lerp(fw, im, weight.to(im.dtype)).mul_(2)
