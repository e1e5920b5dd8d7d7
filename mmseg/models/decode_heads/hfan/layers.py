"""1x1 convolutions as HFAN combines them: with a norm and a ReLU, or with a bias and a ReLU."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.linear import linear
from mmseg.models.layers.norms import norm_affine


class Affine(NamedTuple):
    """A 1x1 convolution with what follows it up to the ReLU, as a linear layer."""

    weight: Tensor  # (C_out, C_in)
    bias: Tensor  # (C_out,)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return linear(tokens, self.weight, self.bias)


class ConvNormReLU(nn.Module):
    """1x1 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C_out, h, w)."""
        return F.relu(self.bn(self.conv(x)), inplace=True)

    def fold(self) -> Affine:
        """Convolution and norm as they are in eval mode."""
        scale, shift = norm_affine(self.bn)
        return Affine((scale[:, None] * self.conv.weight.flatten(1)).contiguous(), shift)


class ConvReLU(nn.Module):
    """1x1 convolution with bias, ReLU; no norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C_out, h, w)."""
        return F.relu(self.conv(x), inplace=True)

    def fold(self) -> Affine:
        """The convolution."""
        return Affine(self.conv.weight.flatten(1).contiguous(), self.conv.bias)


def init_conv(conv: nn.Conv2d) -> None:
    """Kaiming normal by fan-out, bias 0."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
