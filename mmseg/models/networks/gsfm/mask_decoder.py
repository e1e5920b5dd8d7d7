"""The decoder of GSFM: a mask branch and a boundary branch that help each other (specification, section 1.6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.winograd import conv3x3
from mmseg.models.networks.gsfm.conv_blocks import Conv1x1, Conv3x3, ResBlock, add_shared
from mmseg.models.networks.gsfm.spectral import SpectralModule


class Decoded(NamedTuple):
    """Logits of the masks, and of the boundaries where they are wanted: (B, k, H, W)."""

    masks: Tensor
    boundaries: Tensor | None


class UpsampleBlock(nn.Module):
    """Twice the size, with what the key encoder has seen there."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = Conv3x3(skip_channels, in_channels)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """`skip` (B, C, h, w) of the frames and `x` (B * k, C', h/2, w/2) of their objects -> (B * k, C_out, h, w)."""
        return self.out_conv(add_shared(_upsample(x, 2), self.skip_conv(skip)))


class Decoder(nn.Module):
    """Masks and boundaries from what was read from the memory and the features of the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = ResBlock(1024, 512)
        self.up_16_8 = UpsampleBlock(512, 512, 256)
        self.up_8_4 = UpsampleBlock(256, 256, 256)
        self.pred = Conv3x3(256, 1)
        self.boundary_1 = Conv3x3(256, 256)
        self.mask_1 = Conv3x3(256, 256)
        self.boundary_2 = Conv3x3(256, 256)
        self.boundary_3 = Conv3x3(256, 256)
        self.fusion_1 = Conv1x1(256, 256)
        self.fusion_2 = Conv1x1(256, 256)
        self.predict_boundary_1 = Conv3x3(256, 256)
        self.predict_boundary_2 = Conv3x3(256, 1)
        self.predict_mask = Conv3x3(256, 256)
        self.hfm = SpectralModule(256, high=True)

    def forward(self, readout: Tensor, query: Tensor, f8: Tensor, f4: Tensor, boundaries: bool = True) -> Decoded:
        """Logits of the k objects of B frames at frame size.

        Args:
            readout: (B, k, 512, h, w) from the memory.
            query: (B, 512, h, w) of the frames.
            f8, f4: features of the frames at two and four times the size.
            boundaries: whether they are wanted; only the boundary loss needs them.
        """
        x = self.compress(readout.flatten(0, 1), query)
        x = self.up_16_8(f8, x)
        x = self.up_8_4(f4, x)  # (B * k, 256, H/4, W/4)
        boundary, mask = self._first(x).split(256, dim=1)
        boundary = self.hfm(boundary).to(mask.dtype) + self.fusion_1(mask, relu=True)
        boundary = self.boundary_3(self.boundary_2(boundary), relu=True)
        mask = self.predict_mask(self.fusion_2(boundary, relu=True) + mask, relu=True)
        masks = _upsample(self.pred(mask), 4).unflatten(0, readout.shape[:2])[:, :, 0]
        if not boundaries:
            return Decoded(masks, None)
        boundary = self.predict_boundary_2(self.predict_boundary_1(boundary, relu=True))
        return Decoded(masks, _upsample(boundary, 4).unflatten(0, readout.shape[:2])[:, :, 0])

    def _first(self, x: Tensor) -> Tensor:
        """``boundary_1`` and ``mask_1`` of `x`, joined: they share their input."""
        first, second = self.boundary_1, self.mask_1
        return conv3x3(x, torch.cat([first.weight, second.weight]), torch.cat([first.bias, second.bias]))


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
