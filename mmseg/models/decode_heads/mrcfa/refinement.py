"""Refinement of cross-frame affinities: small convolutions over the target's positions (MRCFA, sections 3.2 and 3.3).

An affinity map is an image over the target's positions that belongs to one reference token. The refinement cleans the
maps of each stride (single-scale affinity refinement, SAR) and merges the strides from coarse to fine (multi-scale
affinity aggregation, MAA). No operation mixes different tokens.

The maps are kept as *planes* ``(channels, tokens, h, w)`` in channels-last memory: the one or two channels of a map
lie on the batch axis and the tokens on the channel axis. Every convolution is then depth-wise with the same kernel for
all tokens, and the norm of a token is a batch norm over its channel, both of which run at memory speed, while
convolutions with many images of one channel do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.bfloat16 import scale_and_shift


class TargetConv(nn.Module):
    """Zero-padded convolution of affinity maps over the target's positions.

    It is the half over the target of a 4D centre-pivot convolution, hence the official name ``conv2``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv2 = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, planes: Tensor) -> Tensor:
        """Planes ``(C_in, n, h, w)`` of n tokens -> ``(C_out, n, h, w)``."""
        outputs = [self._out_plane(planes, o) for o in range(self.conv2.out_channels)]  # each (1, n, h, w)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _out_plane(self, planes: Tensor, o: int) -> Tensor:
        weight, bias, tokens = self.conv2.weight, self.conv2.bias, planes.shape[1]
        total = None
        for i in range(self.conv2.in_channels):
            kernel = weight[o, i].expand(tokens, 1, -1, -1).contiguous()  # (n, 1, k, k)
            offset = bias[o].repeat(tokens) if i == 0 else None
            part = F.conv2d(planes[i : i + 1], kernel, offset, padding=self.conv2.padding, groups=tokens)
            total = part if total is None else total.add_(part)
        return total  # (1, n, h, w)

    def on_queries(self, queries: Tensor) -> Tensor:
        """Query maps ``(B, C, h, w)`` convolved so that their dot products with keys come out convolved.

        For a convolution with one input and one output channel, ``conv(<q, k>) = <conv(q), k> + bias``: the kernel
        goes over the C query maps, whatever the number of keys. The bias is left to the product.
        """
        channels = queries.shape[1]
        kernel = self.conv2.weight.repeat(channels, 1, 1, 1)
        return F.conv2d(queries, kernel, padding=self.conv2.padding, groups=channels)


class RefinementBlock(nn.Sequential):
    """Stages of convolution, group norm with one group (per token, over channels and positions) and ReLU.

    Args:
        channels: of the input, then of the output of every stage.
        kernels: kernel size of every stage.
    """

    def __init__(self, channels: Sequence[int], kernels: Sequence[int]) -> None:
        stages: list[nn.Module] = []
        for in_channels, out_channels, kernel in zip(channels, channels[1:], kernels):
            stages += [TargetConv(in_channels, out_channels, kernel), nn.GroupNorm(1, out_channels), nn.ReLU()]
        super().__init__(*stages)

    def forward(self, planes: Tensor, convolved: bool = False) -> Tensor:
        """Planes ``(C_in, n, h, w)`` -> ``(C_out, n, h, w)``; `convolved`: the first convolution is already done."""
        for stage in range(0, len(self), 3):
            if stage > 0 or not convolved:
                planes = self[stage](planes)
            planes = _norm_relu(planes, self[stage + 1])
        return planes


class AffinityRefinement(nn.Module):
    """SAR and MAA: affinity maps at strides 32, 16 and 8 to refined maps at stride 8 (``hypercorre_module.hpn``).

    Args:
        backbone: 'b1' selects the long form with two stages per block and two channels between them, any other name
            the short form.
    """

    def __init__(self, backbone: str = "b1") -> None:
        super().__init__()
        if backbone == "b1":
            self.encoder_layer4 = RefinementBlock((1, 1, 2), (3, 3))
            self.encoder_layer3 = RefinementBlock((1, 1, 2), (3, 3))
            self.encoder_layer2 = RefinementBlock((1, 1, 2), (5, 3))
            self.encoder_layer4to3 = RefinementBlock((2, 2, 2), (3, 3))
            self.encoder_layer3to2 = RefinementBlock((2, 2, 1), (3, 3))
        else:
            self.encoder_layer4 = RefinementBlock((1, 1), (3,))
            self.encoder_layer3 = RefinementBlock((1, 1), (5,))
            self.encoder_layer2 = RefinementBlock((1, 1), (5,))
            self.encoder_layer4to3 = RefinementBlock((1, 1), (3,))
            self.encoder_layer3to2 = RefinementBlock((1, 1), (3,))

    def forward(self, x32: Tensor, x16: Tensor, x8: Tensor, convolved: bool = False) -> Tensor:
        """Refine the maps of n tokens.

        Args:
            x32, x16, x8: planes ``(1, n, h, w)`` of affinities, each at the target's size of that stride.
            convolved: the first convolutions of strides 16 and 8 are already in the products
                (:meth:`TargetConv.on_queries`); stride 32 always comes raw, because the token scores need it raw.

        Returns:
            ``(1, n, h8, w8)``, not negative.
        """
        x4 = self.encoder_layer4(x32)
        x3 = self.encoder_layer3(x16, convolved)
        x2 = self.encoder_layer2(x8, convolved)
        mixed = self.encoder_layer4to3(_upsample(x4, x3).add_(x3))
        return self.encoder_layer3to2(_upsample(mixed, x2).add_(x2))


def _upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` at the size of `fine`; the only interpolations of the method that align corners."""
    return F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True)


def _norm_relu(planes: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm with one group and ReLU of planes ``(C, n, h, w)``; statistics per token, affine per channel.

    With the channels on the batch axis the statistics of a token are those of a batch norm.
    """
    channels, tokens = planes.shape[:2]
    if channels == 1:
        # repeat, not expand: the backward of a channels-last batch norm reads past an expanded weight (torch 2.15)
        weight, bias = norm.weight.repeat(tokens), norm.bias.repeat(tokens)
        return F.relu_(F.batch_norm(planes, None, None, weight, bias, True, 0.0, norm.eps))
    planes = F.batch_norm(planes, None, None, None, None, True, 0.0, norm.eps)
    return F.relu_(scale_and_shift(planes, norm.weight.view(-1, 1, 1, 1), norm.bias.view(-1, 1, 1, 1)))
