"""Swin Transformer (arXiv:2103.14030, section 3) as a backbone of four maps, under the names of OpenMMLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Len, Lt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg.models.backbones.mit import DropPath
from mmseg.models.backbones.pretrained import init_from_config
from mmseg.models.backbones.swin_weights import own_names
from mmseg.models.layers.attention import window_attention
from mmseg.models.layers.linear import Linear
from mmseg.registry import MODELS, absolute
from mmseg.values import Fraction, PositiveInt

Four = Annotated[Sequence[PositiveInt], Len(4, 4)]


def window_partition(x: Tensor, side: int) -> Tensor:
    """(n, h, w, C) -> (n * windows, side ** 2, C), sides being multiples of `side`."""
    h, w = x.shape[1:3]
    x = x.unflatten(2, (w // side, side)).unflatten(1, (h // side, side))  # (n, h', side, w', side, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def window_reverse(windows: Tensor, side: int, h: int, w: int) -> Tensor:
    """The inverse of :func:`window_partition`: (n, h, w, C)."""
    x = windows.unflatten(1, (side, side)).unflatten(0, (-1, h // side, w // side))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def shift_mask(h: int, w: int, side: int, shift: int, device: torch.device) -> Tensor:
    """(windows, side ** 2, side ** 2): -100 between positions that only the cyclic shift made neighbours, else 0."""
    region = torch.zeros(1, h, w, 1, device=device)
    spans = (slice(0, -side), slice(-side, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in spans for columns in spans):
        region[:, rows, columns] = number
    region = window_partition(region, side).squeeze(2)  # (windows, side ** 2)
    return torch.where(region[:, None] != region[:, :, None], -100.0, 0.0)


class WindowMSA(nn.Module):
    """Self-attention inside windows with a bias for every relative position."""

    def __init__(self, dim: int, num_heads: int, side: int, qkv_bias: bool, qk_scale: float | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, num_heads))
        steps = torch.arange(side)
        position = (steps[:, None] * (2 * side - 1) + steps).flatten()
        self.register_buffer("relative_position_index", (position[:, None] + position.flip(0)).contiguous())
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows `x` (n, L, C) -> (n, L, C); `mask` (windows, L, L) is added to the logits."""
        table = self.relative_position_bias_table[self.relative_position_index]  # (L, L, heads)
        bias = table.permute(2, 0, 1)[None]  # (1, heads, L, L)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(x) // len(mask), 1, 1, 1)
        query, keys = self.qkv(x).split((x.shape[2], 2 * x.shape[2]), dim=2)
        return self.proj(window_attention(query, keys, bias, self.scale))


class ShiftWindowMSA(nn.Module):
    """:class:`WindowMSA` on a map, which is padded to whole windows and may be shifted by half of one."""

    def __init__(self, dim: int, num_heads: int, side: int, shift: int, **attention: Any) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.w_msa = WindowMSA(dim, num_heads, side, **attention)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, C) -> (n, h, w, C)."""
        h, w = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -w % self.side, 0, -h % self.side))
        padded, mask = x.shape[1:3], None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            mask = shift_mask(*padded, self.side, self.shift, x.device).to(x.dtype)
        x = window_reverse(self.w_msa(window_partition(x, self.side), mask), self.side, *padded)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :h, :w]


class FeedForward(nn.Module):
    """Linear, GELU, linear; the layers are numbered as in the published files."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(Linear(dim, hidden_dim), nn.GELU()), Linear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SwinBlock(nn.Module):
    """Pre-norm transformer block with window attention."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, drop_path: float, **attention: Any) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ShiftWindowMSA(dim, num_heads, **attention)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, C) -> (n, h, w, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.ffn(self.norm2(x)))


class PatchMerging(nn.Module):
    """Four neighbours become one position of twice the channels; the four values of a channel stay together."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, C) -> (n, ceil(h / 2), ceil(w / 2), 2C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (n, h', 2, w', 2, C)
        return self.reduction(self.norm(x.permute(0, 1, 3, 5, 2, 4).flatten(3)))


class SwinStage(nn.Module):
    """The blocks of one resolution, and the way to the next."""

    def __init__(self, blocks: Sequence[SwinBlock], dim: int, merges: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = PatchMerging(dim) if merges else None


class PatchEmbed(nn.Module):
    """Non-overlapping patches of 4x4 pixels."""

    def __init__(self, dim: int, patch_size: int, norm: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, ceil(H / 4), ceil(W / 4), C)."""
        x = F.pad(x, (0, -x.shape[3] % self.patch_size, 0, -x.shape[2] % self.patch_size))
        x = self.projection(x).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


@MODELS.register_module()
class SwinTransformer(nn.Module):
    """Swin: images (n, 3, H, W) to four normalised maps of strides 4, 8, 16, 32.

    Args:
        embed_dims: channels of the first stage; they double with every stage.
        depths, num_heads: of the four stages (default: Swin-Tiny).
        window_size: side of a window.
        mlp_ratio, qkv_bias, qk_scale, patch_norm: of the blocks and of the patch embedding.
        drop_path_rate: of the last block; it rises linearly from 0 in the first.
        frozen_stages: the first stages that are not trained, 0 stands for the patch embedding, -1 for nothing.
        with_cp: recompute the activations of the blocks in backward.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)``; files of OpenMMLab, of the Swin repository, timm and
            torchvision are taken.
    """

    def __init__(
        self,
        embed_dims: PositiveInt = 96,
        depths: Four = (2, 2, 6, 2),
        num_heads: Four = (3, 6, 12, 24),
        window_size: PositiveInt = 7,
        mlp_ratio: PositiveInt = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        drop_path_rate: Annotated[Fraction, Lt(1)] = 0.1,
        frozen_stages: Annotated[int, Ge(-1), Le(4)] = -1,
        with_cp: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.with_cp, self.frozen_stages = with_cp, frozen_stages
        self.out_channels = tuple(embed_dims * 2**s for s in range(4))
        self.patch_embed = PatchEmbed(embed_dims, 4, patch_norm)
        attention = dict(side=window_size, qkv_bias=qkv_bias, qk_scale=qk_scale)
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for s, (dim, depth, heads) in enumerate(zip(self.out_channels, depths, num_heads)):
            shifts = [window_size // 2 if i % 2 else 0 for i in range(depth)]
            blocks = [SwinBlock(dim, heads, mlp_ratio * dim, next(rates), shift=i, **attention) for i in shifts]
            self.stages.append(SwinStage(blocks, dim, merges=s < 3))
        for s, dim in enumerate(self.out_channels):
            self.add_module(f"norm{s}", nn.LayerNorm(dim))
        self.apply(_init_weights)
        init_from_config(self, init_cfg, absolute("init_cfg"))
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        parts: list[nn.Module] = [self.patch_embed]
        for s in range(self.frozen_stages):
            parts += [self.stages[s], getattr(self, f"norm{s}")]
        return parts

    def train(self, mode: bool = True) -> SwinTransformer:
        """Training mode of what is trained."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def adapt_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of a file of pretrained weights under the names of this module.

        Files of classifiers have no norms of the maps, which keep their initial values.
        """
        return own_names(state, self.state_dict())

    def forward(self, x: Tensor) -> list[Tensor]:
        """`x` (n, 3, H, W) -> [(n, C_s, h_s, w_s)]."""
        x = self.patch_embed(x)
        maps = []
        for s, stage in enumerate(self.stages):
            for block in stage.blocks:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            maps.append(getattr(self, f"norm{s}")(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
