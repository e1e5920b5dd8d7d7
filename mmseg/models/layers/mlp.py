"""The two-layer perceptron of the transformer blocks at 1/8 resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.layers.cpu_linear import Linear

_CHUNK = 512  # tokens per slice without gradients: hidden activations that stay in the processor's cache


class Mlp(nn.Module):
    """``fc2(gelu(fc1(x)))`` on the last axis, with the exact GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """``x + self(normed)`` for tokens (..., C), in slices and into `x` itself when no graph is built."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return x + self(normed)
        for part, source in zip(x.flatten(0, -2).split(_CHUNK), normed.flatten(0, -2).split(_CHUNK)):
            part += self(source)
        return x
