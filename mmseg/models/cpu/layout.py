"""Strides by which convolutions and resizing take their fast code; the numbers are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.kernels import passes
from mmseg.models.cpu.kernels.library import kernels_for
from mmseg.models.cpu.linear import uses_onednn


def is_depthwise3x3(conv: nn.Conv2d) -> bool:
    """Whether it is what :func:`depthwise_conv3x3` computes."""
    own = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    return own == ((3, 3), (1, 1), (1, 1), (1, 1), conv.in_channels, "zeros") and conv.out_channels == conv.groups


def depthwise_conv3x3(maps: Tensor, conv: nn.Conv2d, padding: tuple[int, int] = (1, 1), gelu: bool = False) -> Tensor:
    """``conv(maps)`` of channels-last maps (n, C, h, w), for a 3x3 convolution of every channel by itself.

    Args:
        padding: that of `conv` is 1; strips of a map come with their neighbours above and below, (0, 1).
        gelu: the exact GELU of it.
    """
    if maps.device.type != "cpu":
        return F.gelu(conv(maps)) if gelu else conv(maps)
    # oneDNN keeps the channels-last order of its input only if the weight has channels-last strides too
    weight = conv.weight.view(-1, 3, 3, 1).permute(0, 3, 1, 2)  # (C, 1, 3, 3)
    if gelu and uses_onednn(maps):  # in one pass
        shape = list(padding), [1, 1], [1, 1], conv.groups
        return torch.ops.mkldnn._convolution_pointwise(maps, weight, conv.bias, *shape, "gelu", [], "none")
    maps = F.conv2d(maps, weight, conv.bias, padding=padding, groups=conv.groups)
    return F.gelu(maps) if gelu else maps


def depthwise_gelu(
    parts: Sequence[Tensor], conv: nn.Conv2d, width: int, ends: tuple[bool, bool] = (True, True)
) -> Tensor:
    """``gelu(conv(map))`` of tokens, for what :func:`is_depthwise3x3`.

    Args:
        parts: (n, S_i, C), row-major tokens of maps of `width`, one part below the other.
        ends: whether the maps end above the parts and below them, or the outermost rows are only the neighbours of
            others.

    Returns:
        (n, S, C), S of all parts without the neighbours; contiguous.
    """
    first = parts[0]
    own = conv.weight.shape[0], conv.weight.dtype, conv.weight.device
    if (
        own == (first.shape[-1], first.dtype, first.device)
        and all(part.shape[1] % width == 0 for part in parts)
        and kernels_for(first)
    ):
        return passes.depthwise_gelu(parts, conv.weight, conv.bias, width, ends)
    padding = 1, 1
    if len(parts) > 1 or not all(ends):
        border = first.new_zeros(len(first), width, first.shape[-1])
        first, padding = torch.cat([border] * ends[0] + [*parts] + [border] * ends[1], dim=1), (0, 1)
    maps = first.unflatten(1, (-1, width)).permute(0, 3, 1, 2)  # (n, C, rows, width), channels last
    return depthwise_conv3x3(maps, conv, padding, gelu=True).flatten(2).transpose(1, 2).contiguous()


def visible_layout(x: Tensor) -> Tensor:
    """`x` (n, C, h, w) with the strides that its layout has for any batch size.

    Views leave an arbitrary stride on a batch axis of length 1. PyTorch then takes a channels-last map for one of no
    known layout, and resizing it takes up to five times as long.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x
    n, channels, _, w = x.shape
    hidden = n == 1 and x.stride(0) != x.numel() and x.is_contiguous(memory_format=torch.channels_last)
    if not hidden:
        return x
    return x.as_strided(x.shape, (x.numel(), 1, w * channels, channels))
