"""Multi-scale deformable attention (arXiv:2010.04159, section 4.1): every query reads a few points of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.cpu.deformable import FramedMaps, framed, gathers_rows, sample_rows
from mmseg.models.layers.linear import Linear
from mmseg.models.layers.size_tables import table

Size = tuple[int, int]


def deformable_attention(value: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples (zeros outside of the maps, half-pixel centres).

    Args:
        value: (n, S, heads, d), the levels one after the other, row-major.
        sizes: (h, w) of the levels.
        locations: (n, L, heads, levels, points, 2), x first, 0 and 1 being the borders of a map.
        weights: (n, L, heads, levels, points).

    Returns:
        (n, L, heads * d).
    """
    sizes = as_sizes(sizes)
    pixels = locations * level_sizes(sizes, locations.device) - 0.5
    return sample(value_maps(value, sizes), sizes, pixels, weights).to(value.dtype)


def as_sizes(sizes: Sequence[Sequence[int]]) -> tuple[Size, ...]:
    """Sizes of levels, however they are given (lists, or a tensor), as what tables are kept by."""
    return tuple((int(h), int(w)) for h, w in sizes)


def value_maps(value: Tensor, sizes: Sequence[Size]) -> list[Tensor] | FramedMaps:
    """What :func:`sample` reads: `value` (n, S, heads, d) in the form that is read fastest.

    It is float32 at least, and so are the samples: half precision cannot tell the positions of a large map apart.
    """
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    if gathers_rows(value):
        return framed(value, sizes)
    return list(value.permute(0, 2, 3, 1).split([h * w for h, w in sizes], dim=-1))  # (n, heads, d, h * w) each


def sample(maps: list[Tensor] | FramedMaps, sizes: Sequence[Size], pixels: Tensor, weights: Tensor) -> Tensor:
    """:func:`deformable_attention` for positions in pixels of their level, the centre of the first being 0."""
    if isinstance(maps, FramedMaps):
        return sample_rows(maps, pixels.to(maps.table.dtype), weights.to(maps.table.dtype))
    with torch.autocast(pixels.device.type, enabled=False):
        return _sample_levels(maps, sizes, pixels.to(maps[0].dtype), weights.to(maps[0].dtype))


def _sample_levels(maps: list[Tensor], sizes: Sequence[Size], pixels: Tensor, weights: Tensor) -> Tensor:
    """:func:`sample`, level by level: one level's samples exist at a time."""
    n, heads, dim, _ = maps[0].shape
    grids = (2 * pixels + 1) / level_sizes(sizes, pixels.device) - 1
    # points before queries: neighbours in memory read neighbours, and the sum over points adds up whole rows
    grids = grids.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (levels, n * heads, points, L, 2)
    shares = weights.permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None]  # (levels, n * heads, 1, points, L)
    total: Tensor | None = None  # (n * heads, d, L)
    for part, size, grid, share in zip(maps, sizes, grids, shares):
        level = part.unflatten(-1, size).flatten(0, 1)  # (n * heads, d, h, w)
        samples = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        found = (samples * share).sum(dim=2)
        total = found if total is None else total + found
    return total.view(n, heads * dim, -1).transpose(1, 2)


@table
def level_sizes(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    """Width and height of every level, (levels, 1, 2) float32."""
    return torch.tensor([[[float(w), float(h)]] for h, w in sizes], device=device)


class MSDeformAttn(nn.Module):
    """Deformable attention with its projections.

    Args:
        d_model: channels C.
        n_levels, n_heads, n_points: per query and head, `n_points` on each of `n_levels`.
    """

    def __init__(self, d_model: int = 256, n_levels: int = 3, n_heads: int = 8, n_points: int = 4) -> None:
        super().__init__()
        self.n_levels, self.n_heads, self.n_points = n_levels, n_heads, n_points
        self.sampling_offsets = Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = Linear(d_model, d_model)
        self.output_proj = Linear(d_model, d_model)
        self._init_weights()

    def _init_weights(self) -> None:
        """At first, the points of head h lie on a ray of angle 2 pi h / heads, one pixel apart on every level."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.device("cpu"):  # also while a model is made elsewhere
            angle = torch.arange(self.n_heads, dtype=torch.float32) * (2 * math.pi / self.n_heads)
            ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
            ray = ray / ray.abs().amax(dim=-1, keepdim=True)  # (heads, 2)
            points = ray[:, None, None] * torch.arange(1, self.n_points + 1)[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(points.expand(-1, self.n_levels, -1, -1).flatten())

    def forward(self, query: Tensor, reference_points: Tensor, value: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Attention of L queries to S tokens.

        Args:
            query: (n, L, C).
            reference_points: (n or 1, L, levels or 1, 2) in [0, 1], x first.
            value: (n, S, C), what is read.
            sizes: (h, w) of the levels.

        Returns:
            (n, L, C).
        """
        return self.attend(query, reference_points, self.values(value, sizes), sizes)

    def values(self, value: Tensor, sizes: Sequence[Size]) -> list[Tensor] | FramedMaps:
        """What is read of the tokens `value` (n, S, C), for :meth:`attend`."""
        return value_maps(self.value_proj(value).unflatten(-1, (self.n_heads, -1)), as_sizes(sizes))

    def attend(
        self, query: Tensor, reference_points: Tensor, values: list[Tensor] | FramedMaps, sizes: Sequence[Size]
    ) -> Tensor:
        """:meth:`forward` with the result of :meth:`values`; each query by itself."""
        sizes, per_query = as_sizes(sizes), (self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_query, 2))  # in pixels of the level
        weights = self.attention_weights(query).unflatten(-1, (self.n_heads, -1)).softmax(dim=-1)
        centres = reference_points[:, :, None, :, None] * level_sizes(sizes, query.device) - 0.5
        found = sample(values, sizes, centres + offsets, weights.unflatten(-1, per_query[1:]))
        return self.output_proj(found.to(query.dtype))
