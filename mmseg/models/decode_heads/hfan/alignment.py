"""Feature alignment (HFAN, section 3.2): both streams look at the same two regions of the frame.

The frame's features are summed up in two region vectors, which nothing but the loss tells to be background and object.
Every position of either stream attends to the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.bfloat16 import scale_and_shift
from mmseg.models.cpu.linear import linear
from mmseg.models.decode_heads.hfan.layers import Affine, ConvNormReLU

REGIONS = 2


def region_context(maps: Tensor, logits: Tensor) -> Tensor:
    """Region vectors (B, C, 2, 1): means of `maps` (B, C, h, w), weighted by a softmax over the **positions**.

    Args:
        logits: (B, 2, h, w).
    """
    weights = logits.flatten(2).softmax(dim=-1)  # (B, 2, h * w), rows of sum 1
    return (maps.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)


class ContextAlignment(nn.Module):
    """Attention of the positions of one stream to the region vectors, and its result mixed with the stream.

    Args:
        channels: C of the stage.
        inner: c, the width of queries, keys and values.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.key_project = nn.Sequential(ConvNormReLU(channels, inner), ConvNormReLU(inner, inner))
        self.query_project = nn.Sequential(ConvNormReLU(channels, inner), ConvNormReLU(inner, inner))
        self.value_project = ConvNormReLU(channels, inner)
        self.out_project = ConvNormReLU(inner, channels)
        self.bottleneck = ConvNormReLU(2 * channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The aligned stream (B, C, h, w) of `x` (B, C, h, w) with the region vectors `context` (B, C, 2, 1)."""
        query = self.query_project(x).flatten(2).transpose(1, 2)  # (B, h * w, c)
        key = self.key_project(context).flatten(2)  # (B, c, 2)
        value = self.value_project(context).flatten(2).transpose(1, 2)  # (B, 2, c)
        attention = (query @ key * key.shape[1] ** -0.5).softmax(dim=-1)  # (B, h * w, 2)
        found = (attention @ value).transpose(1, 2).unflatten(2, x.shape[2:])  # (B, c, h, w)
        return self.bottleneck(torch.cat([self.out_project(found), x], dim=1))

    def fold(self) -> FoldedAlignment:
        """Convolutions and norms as linear layers, the bottleneck in its two halves."""
        bottleneck = self.bottleneck.fold()
        context, stream = (half.contiguous() for half in bottleneck.weight.chunk(2, dim=1))
        return FoldedAlignment(
            tuple(layer.fold() for layer in self.key_project),
            tuple(layer.fold() for layer in self.query_project),
            self.value_project.fold(),
            self.out_project.fold(),
            context,
            Affine(stream, bottleneck.bias),
        )


@dataclass(frozen=True)
class FoldedAlignment:
    """:class:`ContextAlignment` in eval mode, on tokens.

    Keys and values are computed once for both streams. The linear part of the output projection is applied to the two
    values before they are mixed, since attention weights sum to 1; its ReLU comes after that.
    """

    key: tuple[Affine, Affine]
    query: tuple[Affine, Affine]
    value: Affine
    out: Affine
    mix_context: Tensor  # (C, C)
    mix_stream: Affine  # C -> C

    def regions(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the positions need of the region vectors (B, 2, C).

        Returns:
            The difference of the keys, scaled, the second value, and the first minus the second; (B, 1, c or C) each.
        """
        key = _relu(self.key[1](_relu(self.key[0](context))))  # (B, 2, c)
        value = self.out(_relu(self.value(context)))  # (B, 2, C)
        direction = (key[:, :1] - key[:, 1:]) * key.shape[-1] ** -0.5
        return direction, value[:, 1:], value[:, :1] - value[:, 1:]

    def align(self, tokens: Tensor, direction: Tensor, value: Tensor, difference: Tensor) -> Tensor:
        """The aligned tokens (n, L, C); of two keys the first has the weight sigmoid(q (k1 - k2) / sqrt(c))."""
        query = _relu(self.query[1](_relu(self.query[0](tokens))))  # (n, L, c)
        weight = (query @ direction.to(query.dtype).transpose(1, 2)).sigmoid()  # (n, L, 1)
        found = _relu(scale_and_shift(weight.to(value.dtype), difference, value))  # (n, L, C)
        return _relu(self.mix_stream(tokens).add_(linear(found, self.mix_context)))


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)
