"""The pixel decoder: four maps of the backbone become tokens of three strides and an embedding of every pixel.

Strides 8, 16 and 32 look at each other by deformable attention; stride 4 takes the result of stride 8 and joins it with
the finest map of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.errors import ConfigError
from mmseg.models.cpu.pieces import by_tokens
from mmseg.models.cpu.winograd import conv3x3
from mmseg.models.decode_heads.themask.position import code_2d
from mmseg.models.layers import full_precision
from mmseg.models.layers.deformable_attention import MSDeformAttn, Size
from mmseg.models.layers.linear import Linear, pointwise_conv
from mmseg.models.layers.resize import resize
from mmseg.models.layers.size_tables import table
from mmseg.registry import MODELS
from mmseg.values import Fraction, Keys, PositiveInt

_GROUPS = 32  # of the group norms


class MapShape(Keys):
    """What a map of the backbone is like."""

    channels: PositiveInt
    stride: PositiveInt


@dataclass
class PixelMaps:
    """What the query decoders need of n frames.

    Attributes:
        levels: multi-scale features (n, C, h_l, w_l) of strides 32, 16, 8.
        mask_features: the embedding of every pixel (n, mask_dim, h, w), stride 4.
    """

    levels: tuple[Tensor, ...]
    mask_features: Tensor


def joined(maps: Sequence[PixelMaps]) -> PixelMaps:
    """Those of all frames, in order."""
    if len(maps) == 1:
        return maps[0]
    levels = tuple(torch.cat(parts) for parts in zip(*(frame.levels for frame in maps)))
    return PixelMaps(levels, torch.cat([frame.mask_features for frame in maps]))


@MODELS.register_module()
class DeformablePixelDecoder(nn.Module):
    """Pixel decoder with a deformable encoder over three strides; it works in the precision of its weights.

    Args:
        input_shape: name -> channels and stride of the backbone's maps, finest first.
        conv_dim: channels C of the levels.
        mask_dim: channels of the mask features.
        norm: group norm, of 32 groups.
        transformer_dropout, transformer_nheads, transformer_dim_feedforward, transformer_enc_layers: of the encoder.
        transformer_in_features: names of the maps that go through the encoder, finest first: all but the first.
        common_stride: of the mask features.

    Raises:
        ConfigError: values that do not fit together.
    """

    def __init__(
        self,
        input_shape: Mapping[str, MapShape],
        conv_dim: PositiveInt = 256,
        mask_dim: PositiveInt = 256,
        norm: Literal["GN"] = "GN",
        transformer_dropout: Fraction = 0.0,
        transformer_nheads: PositiveInt = 8,
        transformer_dim_feedforward: PositiveInt = 1024,
        transformer_enc_layers: PositiveInt = 6,
        transformer_in_features: Sequence[str] = ("res3", "res4", "res5"),
        common_stride: Literal[4] = 4,
    ) -> None:
        super().__init__()
        _check(input_shape, conv_dim, transformer_nheads, transformer_in_features)
        fine, *coarse = (shape["channels"] for shape in input_shape.values())
        self.conv_dim, self.mask_dim = conv_dim, mask_dim
        self.input_proj = nn.ModuleList(_Projection(channels, conv_dim) for channels in reversed(coarse))
        self.transformer = DeformableEncoder(
            conv_dim,
            transformer_nheads,
            transformer_dim_feedforward,
            transformer_enc_layers,
            len(coarse),
            transformer_dropout,
        )
        self.mask_features = nn.Conv2d(conv_dim, mask_dim, 1)
        self.adapter_1 = NormedConv(fine, conv_dim, 1)
        self.layer_1 = NormedConv(conv_dim, conv_dim, 3)
        _init_conv(self.mask_features)

    def forward(self, feats: Sequence[Tensor]) -> PixelMaps:
        """Maps [(n, C_s, h_s, w_s)] of the backbone, finest first, of n frames -> their :class:`PixelMaps`."""
        weight = self.mask_features.weight
        with full_precision(weight):
            fine, *coarse = (feat.to(weight.dtype) for feat in feats)
            projected = [project(feat) for project, feat in zip(self.input_proj, reversed(coarse))]
            levels = self.transformer(projected)
            x = self.adapter_1(fine)
            x = x + resize(levels[-1], x.shape[-2:])
            x = F.relu(self.layer_1(x))
            return PixelMaps(levels, pointwise_conv(x, weight.flatten(1), self.mask_features.bias))


class DeformableEncoder(nn.Module):
    """Tokens of all levels attend to points of all levels."""

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, num_layers: int, num_levels: int, dropout: float
    ) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(num_levels, dim))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, hidden_dim, num_levels, dropout) for _ in range(num_layers)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps [(n, C, h_l, w_l)], coarse to fine -> the same maps, refined."""
        sizes = tuple(tuple(x.shape[-2:]) for x in maps)
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)  # (n, S, C)
        codes = [code_2d(*size, tokens.shape[-1], tokens.device).to(tokens.dtype) for size in sizes]
        position = torch.cat([code + embed for code, embed in zip(codes, self.level_embed)])[None]  # (1, S, C)
        centres = token_centres(sizes, tokens.device)
        for layer in self.encoder.layers:
            tokens = layer(tokens, position, centres, sizes)
        parts = tokens.split([h * w for h, w in sizes], dim=1)
        return tuple(part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes))


class EncoderLayer(nn.Module):
    """Deformable attention and a perceptron, each followed by its norm."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, num_levels: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, tokens: Tensor, position: Tensor, centres: Tensor, sizes: Sequence[Size]) -> Tensor:
        """`tokens` (n, S, C) with their `position` (1, S, C) and `centres` (1, S, 1, 2) -> (n, S, C)."""
        values = self.self_attn.values(tokens, sizes)

        def attend_and_think(tokens: Tensor, position: Tensor, centres: Tensor) -> Tensor:
            x = self.self_attn.attend(tokens + position, centres, values, sizes)
            x = self.norm1(tokens + self.dropout(x))
            hidden = self.dropout(self.linear1(x, relu=True))
            return self.norm2(x + self.dropout(self.linear2(hidden)))

        return by_tokens(attend_and_think, tokens, position, centres)


@table
def token_centres(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    """Where the tokens of all levels lie in their frame: (1, S, 1, 2) in [0, 1], x first."""
    centres = []
    for h, w in sizes:
        y = (torch.arange(h, device=device) + 0.5) / h
        x = (torch.arange(w, device=device) + 0.5) / w
        centres.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).flatten(0, 1))
    return torch.cat(centres)[None, :, None]


class NormedConv(nn.Conv2d):
    """1x1 or 3x3 convolution without bias that keeps the size, and the norm that belongs to it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, out_channels)
        _init_conv(self)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C_out, h, w)."""
        if self.kernel_size == (1, 1):
            return self.norm(pointwise_conv(x, self.weight.flatten(1)))
        return self.norm(conv3x3(x, self.weight, self.bias))


class _Projection(nn.Sequential):
    """1x1 convolution and group norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 1), nn.GroupNorm(_GROUPS, out_channels))
        nn.init.xavier_uniform_(self[0].weight)
        nn.init.zeros_(self[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C_out, h, w)."""
        return self[1](pointwise_conv(x, self[0].weight.flatten(1), self[0].bias))


def _init_conv(conv: nn.Conv2d) -> None:
    """Uniform up to ``sqrt(3 / fan_in)``."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _check(input_shape: Mapping[str, MapShape], conv_dim: int, num_heads: int, in_features: Sequence[str]) -> None:
    if [shape["stride"] for shape in input_shape.values()] != [4, 8, 16, 32]:
        raise ConfigError(
            f"input_shape with strides {[shape['stride'] for shape in input_shape.values()]}",
            "four maps of strides 4, 8, 16, 32, finest first",
            "list the maps of the backbone in order",
        )
    if list(in_features) != list(input_shape)[1:]:
        raise ConfigError(
            f"transformer_in_features={list(in_features)} of the maps {', '.join(input_shape)}",
            f"{list(input_shape)[1:]}, all maps but the finest",
            "name the maps of strides 8, 16 and 32",
        )
    if conv_dim % num_heads or conv_dim % _GROUPS:
        raise ConfigError(
            f"conv_dim={conv_dim} with transformer_nheads={num_heads}",
            f"a multiple of the heads and of {_GROUPS}, the groups of the norms",
            "use conv_dim=256 with 8 heads",
        )
