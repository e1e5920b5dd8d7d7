"""Position codes: sines and cosines of where a token lies. No weights, and independent of the content."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmseg.models.layers.size_tables import table

TEMPERATURE = 10000
EPS = 1e-6


def axis_code(length: int, features: int, device: torch.device) -> Tensor:
    """Codes of the positions 1 .. length of one axis, which become angles up to 2 pi: (length, features) float32.

    Even features are sines, odd ones cosines, of angles that get coarser from pair to pair.
    """
    position = torch.arange(1, length + 1, dtype=torch.float32, device=device) / (length + EPS) * (2 * math.pi)
    pair = torch.arange(features, device=device) // 2
    angle = position[:, None] / TEMPERATURE ** (2 * pair.float() / features)
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)


@table
def code_2d(h: int, w: int, channels: int, device: torch.device) -> Tensor:
    """Codes of a map: half of the channels tell the row, half the column; (h * w, channels) float32, row-major."""
    y = axis_code(h, channels // 2, device)[:, None].expand(-1, w, -1)
    x = axis_code(w, channels // 2, device)[None].expand(h, -1, -1)
    return torch.cat([y, x], dim=-1).flatten(0, 1)


@table
def code_3d(num_frames: int, h: int, w: int, channels: int, device: torch.device) -> Tensor:
    """Codes of a clip: those of its maps plus one of all channels for the frame; (T, h * w, channels) float32.

    Frames count from 1, so that the code of a single frame is not zero.
    """
    return code_2d(h, w, channels, device) + axis_code(num_frames, channels, device)[:, None]
