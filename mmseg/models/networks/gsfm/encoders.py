"""The encoders of GSFM: ResNets with biases in all convolutions, cut off after their third stage (= STCN).

The key encoder sees a frame, the value encoder a frame with the masks of its objects. Batch norm keeps its statistics
and trains its weights, so that in inference it is part of the convolution before it (:func:`fused`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.layers.norms import norm_affine
from mmseg.models.networks.gsfm.conv_blocks import CBAM, Conv1x1, Conv3x3, ResBlock, conv_of_objects


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = Conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C_out, h / stride, w / stride)."""
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution around a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = Conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = Conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, 4 C, h / stride, w / stride)."""
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    if stride == 1:
        return Conv3x3(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def _stages(block: type, depths: Sequence[int]) -> list[nn.Sequential]:
    """Stages of 64, 128 and 256 channels (times the block's expansion) at 1/4, 1/8 and 1/16."""
    stages, in_channels = [], 64
    for number, depth in enumerate(depths):
        channels, layers = 64 * 2**number, []
        for position in range(depth):
            stride = 2 if number and not position else 1
            layers.append(block(in_channels, channels, stride))
            in_channels = channels * block.expansion
        stages.append(nn.Sequential(*layers))
    return stages


class KeyFeatures(NamedTuple):
    """What the key encoder makes of a frame, coarse last."""

    f4: Tensor  # (n, 256, H/4, W/4)
    f8: Tensor  # (n, 512, H/8, W/8)
    f16: Tensor  # (n, 1024, H/16, W/16)


class KeyEncoder(nn.Module):
    """ResNet-50 on frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.res2, self.layer2, self.layer3 = _stages(Bottleneck, (3, 4, 6))

    def forward(self, frames: Tensor) -> KeyFeatures:
        """Features of normalised frames (n, 3, H, W)."""
        x = F.max_pool2d(self.bn1(self.conv1(frames)).relu_(), 3, 2, padding=1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return KeyFeatures(f4, f8, self.layer3(f8))


class FeatureFusion(nn.Module):
    """Joins what the value encoder sees with the features of the key encoder."""

    def __init__(self, own_channels: int, shared_channels: int, channels: int) -> None:
        super().__init__()
        self.block1 = ResBlock(own_channels + shared_channels, channels)
        self.attention = CBAM(channels)
        self.block2 = ResBlock(channels, channels)

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:
        """`own` (B * k, C, h, w) of the objects and `shared` (B, C', h, w) of the frames -> (B * k, C_out, h, w)."""
        x = self.block1(own, shared)
        return self.block2(x + self.attention(x))


class ValueEncoder(nn.Module):
    """ResNet-18 on a frame with the mask of an object and, if there may be others, that of the others.

    Args:
        single_object: there never are others.
    """

    def __init__(self, single_object: bool = False) -> None:
        super().__init__()
        self.mask_channels = 1 if single_object else 2
        self.conv1 = nn.Conv2d(3 + self.mask_channels, 64, 7, 2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3 = _stages(BasicBlock, (2, 2, 2))
        self.fuser = FeatureFusion(256, 1024, 512)

    def forward(self, frames: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """Memory values of the objects of frames.

        Args:
            frames: (B, 3, H, W), normalised.
            f16: (B, 1024, H/16, W/16), features of the frames after the low-frequency module.
            masks: (B, k, H, W) probabilities of their objects.

        Returns:
            (B, k, 512, H/16, W/16).
        """
        own = masks[:, :, None]  # (B, k, 1, H, W)
        if self.mask_channels == 2:
            own = torch.cat([own, own.sum(1, keepdim=True) - own], dim=2)  # and the sum of the other objects'
        convolve = partial(F.conv2d, stride=2, padding=3)
        x = conv_of_objects(self.conv1, convolve, own.flatten(0, 1), frames, own_first=False)
        x = F.max_pool2d(self.bn1(x).relu_(), 3, 2, padding=1)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fuser(x, f16).unflatten(0, masks.shape[:2])


def fused(encoder: nn.Module) -> nn.Module:
    """A copy for inference, with batch norm as part of the convolution before it."""
    encoder = copy.deepcopy(encoder).requires_grad_(False)
    for module in list(encoder.modules()):
        names = [name for name, child in module.named_children() if isinstance(child, nn.BatchNorm2d)]
        for name in names:
            _fuse(getattr(module, {"1": "0"}.get(name, name.replace("bn", "conv"))), getattr(module, name))
            setattr(module, name, nn.Identity())
        if type(module) is nn.Conv2d and module.weight.device.type == "cpu":  # the layout that oneDNN is fastest with
            module.to(memory_format=torch.channels_last)
    return encoder


def _fuse(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make the norm, whose statistics stay, a part of the convolution before it."""
    scale, shift = norm_affine(norm)
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias.mul_(scale).add_(shift)


def init_resnet(encoder: nn.Module) -> None:
    """Random weights of a ResNet: those that ImageNet files then replace (GSFM specification, section 1.8)."""
    for name, module in encoder.named_modules():
        if name.startswith("fuser"):
            continue
        if isinstance(module, nn.Conv2d):
            out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / out))
            nn.init.zeros_(module.bias)
