"""The encoder of exports in tests: a graph of a few nodes, where that of a MiT has hundreds, which take seconds."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from tests.contract.systems import System


@MODELS.register_module(force=True)
class FourConvolutions(nn.Module):
    """Maps of strides 4, 8, 16, 32 with the channels of MiT-B0."""

    out_channels = (32, 64, 160, 256)

    def __init__(self) -> None:
        super().__init__()
        channels = (3, *self.out_channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[s], channels[s + 1], 7 if s == 0 else 3, 4 if s == 0 else 2, 3 if s == 0 else 1)
            for s in range(4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (n, 3, H, W) -> [(n, C_s, h_s, w_s)] for s = 1..4."""
        maps = []
        for conv in self.convs:
            x = conv(x)
            x = F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
            maps.append(x)
        return maps


def with_small_encoder(system: System) -> System:
    """The same system with that encoder in place of its MiT."""
    config = system.config()
    config["backbone"].update({"ori_type" if "ori_type" in config["backbone"] else "type": "FourConvolutions"})
    return replace(system, config=lambda: config)
