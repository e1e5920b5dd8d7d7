"""Linear layers on tokens and on maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.cpu.linear import linear
from mmseg.models.cpu.pieces import add_residual
from mmseg.models.cpu.tokens import gelu
from mmseg.models.layers.compiling import is_exporting


class Linear(nn.Linear):
    """``nn.Linear`` by the fastest way there is on its device."""

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        return linear(x, self.weight, self.bias, relu)


class Mlp(nn.Module):
    """``fc2(gelu(fc1(x)))`` on the last axis, with the exact GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(gelu(self.fc1(x)))

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """``x + self(normed)`` for tokens (..., C); without a graph it may be written into `x`."""
        return add_residual(x, normed, self)


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of a map (n, C_in, h, w) with `weight` (C_out, C_in) -> (n, C_out, h, w).

    It is a linear layer on the map's channels-last storage, and so is its result, which makes what follows (resizing
    and pooling) several times faster on a CPU. In a graph for other engines, which choose the storage of maps
    themselves, it is a convolution.
    """
    if is_exporting():
        return F.conv2d(x, weight[:, :, None, None], bias)
    return linear(x.permute(0, 2, 3, 1).contiguous(), weight, bias).permute(0, 3, 1, 2)
