"""Blocks of convolutions without normalisation, and convolutions of inputs that several objects have in common.

The objects of a frame see the same picture. Where a convolution is applied to the channels of an object joined with
those of its frame, it is the sum of two convolutions, and that of the frame is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mmseg.models.cpu.winograd import conv1x1, conv3x3


class Conv3x3(nn.Conv2d):
    """3x3 convolution that keeps the size, of a ReLU or with one behind it, by the fastest way on its device."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, of_relu: bool = False, relu: bool = False) -> Tensor:
        return conv3x3(x, self.weight, self.bias, of_relu, relu)


class Conv1x1(nn.Conv2d):
    """1x1 convolution, with a ReLU behind it or not, by the fastest way on its device."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        return conv1x1(x, self.weight, self.bias, relu)


class ResBlock(nn.Module):
    """``skip(x) + conv2(relu(conv1(relu(x))))`` (GSFM specification, section 1.2, = STCN)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = Conv3x3(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """The block on a map, or on the channels of each object followed by those of its frame.

        Args:
            x: (n, C_in, h, w), or with `shared` (B * k, C, h, w), the channels of the k objects of B frames.
            shared: (B, C_in - C, h, w), the channels of the frames.

        Returns:
            (n, C_out, h, w).
        """
        if shared is None:
            return self.conv2(self.conv1(x, of_relu=True, relu=True)).add_(self.downsample(x))
        skip = conv_of_objects(self.downsample, conv3x3, x, shared)
        hidden = conv_of_objects(self.conv1, partial(conv3x3, of_relu=True), x, shared)
        return self.conv2(hidden, of_relu=True).add_(skip)


def conv_of_objects(
    conv: nn.Conv2d, convolve: Callable[..., Tensor], own: Tensor, shared: Tensor, own_first: bool = True
) -> Tensor:
    """``conv`` on the channels of each object joined with those of its frame.

    Args:
        conv: takes the channels of both.
        convolve: what it computes of a map, a weight and a bias, and what comes before it with each map by itself.
        own: (B * k, C, h, w), those of the k objects of B frames.
        shared: (B, C', h, w), those of the frames.
        own_first: in which order the channels are joined.

    Returns:
        (B * k, C_out, h', w').
    """
    if own_first:
        own_weight, shared_weight = conv.weight.split([own.shape[1], shared.shape[1]], dim=1)
    else:
        shared_weight, own_weight = conv.weight.split([shared.shape[1], own.shape[1]], dim=1)
    return add_shared(convolve(own, own_weight, None), convolve(shared, shared_weight, conv.bias))


def add_shared(own: Tensor, shared: Tensor) -> Tensor:
    """To `own` (B * k, C, h, w), for every object, add `shared` (B, C, h, w) of its frame, in place."""
    own.unflatten(0, (len(shared), -1)).add_(shared[:, None])
    return own


class ChannelGate(nn.Module):
    """Factors of the channels from their global mean and maximum."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * gate.sigmoid()[:, :, None, None]


class SpatialGate(nn.Module):
    """Factors of the positions from maximum and mean over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential()
        self.spatial.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same."""
        pooled = torch.stack([x.amax(1), x.mean(1)], dim=1)  # (n, 2, h, w)
        return x * self.spatial.conv(pooled).sigmoid()


class CBAM(nn.Module):
    """Attention to channels, then to positions (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)  # the names of the official state dict
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same."""
        return self.SpatialGate(self.ChannelGate(x))
