"""Focal attention as it is written down: roll, partition, unfold, mask, explicit softmax.

The oracle of the tests and the baseline of the benchmark; :mod:`.focal` computes the same faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.decode_heads.cffm.focal_geometry import (
    NEIGHBORHOOD,
    REFERENCE_CELLS,
    REFERENCE_NEIGHBORHOODS,
    TOKENS,
    WINDOW,
    ring_offsets,
)

if TYPE_CHECKING:
    from mmseg.models.decode_heads.cffm.focal import FocalAttention, FocalBlock

_OUTSIDE = -100.0


def block(module: FocalBlock, x: Tensor) -> Tensor:
    """(B, K, h, w, C) -> the same with the last frame updated by `module`."""
    batch, _, h, w, _ = x.shape
    y = module.norm1(x)
    y = F.pad(y, (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))  # (B, K, Hp, Wp, C)
    target = y[:, -1]
    pooled = [_pool(module.pool_layers[0], target, WINDOW)]
    for role, cells in enumerate(REFERENCE_CELLS):
        side = WINDOW // cells
        size = (target.shape[1] // WINDOW * cells * side, target.shape[2] // WINDOW * cells * side)
        pooled.append(_pool(module.pool_layers_clips[role], _resize(y[:, role], size), side))
    windows = module.attn(target, pooled)  # (B * W, 49, C)
    out = merge(windows, batch, *target.shape[1:3])[:, :h, :w]
    z = x[:, -1] + out
    z = z + module.mlp(module.norm2(z))
    return torch.cat([x[:, :-1], z[:, None]], 1)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, H, W, C) unless it has that size already."""
    if tuple(x.shape[1:3]) == size:
        return x
    x = F.interpolate(x.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
    return x.permute(0, 2, 3, 1)


def _pool(layer: nn.Linear, x: Tensor, side: int) -> Tensor:
    """Weighted sums over side x side positions: (B, H, W, C) -> (B, H / side, W / side, C)."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, side, columns, side, C)
    return layer(x.permute(0, 1, 3, 5, 2, 4).flatten(-2)).squeeze(-1)


def partition(x: Tensor) -> Tensor:
    """(B, Hp, Wp, C) -> windows (B * W, 49, C)."""
    x = x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, TOKENS, x.shape[-1])


def merge(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Windows (B * W, 49, C) -> (B, Hp, Wp, C)."""
    x = windows.view(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, -1)
    return x.transpose(2, 3).reshape(batch, height, width, -1)


def attention(module: FocalAttention, target: Tensor, pooled: list[Tensor]) -> Tensor:
    """Target (B, Hp, Wp, C), pooled maps of target and references -> attention output (B * W, 49, C)."""
    qkv = module.qkv(target)  # (B, Hp, Wp, 3C)
    parts = [partition(qkv), _ring(module, qkv)]
    masks = [target.new_zeros(len(parts[0]), parts[0].shape[1] + parts[1].shape[1])]
    for cells, neighborhood, x in zip([1, *REFERENCE_CELLS], [NEIGHBORHOOD, *REFERENCE_NEIGHBORHOODS], pooled):
        parts.append(_unfold(module.qkv(x), neighborhood, cells))
        masks.append(_missing(x, neighborhood, cells))
    query, key, value = (_heads(module, part) for part in torch.cat(parts, 1).chunk(3, -1))
    query = query[:, :, :TOKENS] * module.scale
    mask = torch.cat(masks, 1)[:, None, None]  # (B * W, 1, 1, 289)
    logits = query @ key.transpose(-2, -1) + module.bias() + mask  # (B * W, heads, 49, 289)
    out = logits.softmax(-1) @ value
    return module.proj(out.transpose(1, 2).flatten(2))


def _heads(module: FocalAttention, x: Tensor) -> Tensor:
    """(n, L, C) -> (n, heads, L, C / heads)."""
    return x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)


def _ring(module: FocalAttention, qkv: Tensor) -> Tensor:
    """The ring around every window: (B, Hp, Wp, 3C) -> (B * W, 132, 3C)."""
    copies = [partition(torch.roll(qkv, (-oy, -ox), dims=(1, 2))) for oy, ox in ring_offsets().tolist()]
    return torch.cat(copies, 1)[:, module.valid_ind_rolled]


def _unfold(x: Tensor, neighborhood: int, cells: int) -> Tensor:
    """The neighbourhood of every window in a pooled map: (B, l * nh, l * nw, C) -> (B * W, n * n, C)."""
    channels = x.shape[-1]
    x = F.unfold(x.permute(0, 3, 1, 2), neighborhood, padding=neighborhood // 2, stride=cells)  # (B, C * n * n, W)
    return x.unflatten(1, (channels, -1)).permute(0, 3, 2, 1).flatten(0, 1)


def _missing(x: Tensor, neighborhood: int, cells: int) -> Tensor:
    """-100 where a neighbourhood leaves the pooled map, else 0: (B * W, n * n)."""
    inside = _unfold(torch.ones_like(x[..., :1]), neighborhood, cells)  # (B * W, n * n, 1)
    return (1 - inside[..., 0]) * _OUTSIDE
