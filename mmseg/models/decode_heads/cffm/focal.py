"""Coarse-to-fine feature mining: the focal decoder of CFFM (paper section 3.2; "cross-frame feature mining").

The last frame of a clip is the target. Its 7x7 windows attend to themselves, to a ring of tokens around them, to
pooled windows of the target and to ever coarser and wider pooled neighbourhoods of three reference frames.
References pass every block unchanged, so all that the blocks ever need of a reference are its pooled maps:
:meth:`FocalDecoder.reference_maps` makes them once per frame and :meth:`FocalDecoder.update` uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.cpu.linear import linear
from mmseg.models.cpu.tokens import layer_norm
from mmseg.models.decode_heads.cffm.focal_attention import FocalBias, gather_rows
from mmseg.models.decode_heads.cffm.focal_geometry import (
    NEIGHBORHOOD,
    REFERENCE_CELLS,
    REFERENCE_NEIGHBORHOODS,
    TOKENS,
    WINDOW,
    FocalGeometry,
    focal_geometry,
    relative_index,
    resize_matrix,
    ring_index,
)
from mmseg.models.layers import full_precision
from mmseg.models.layers.linear import Linear, Mlp
from mmseg.models.layers.norms import LayerNorm

_ROLE_CELLS = [cells**2 for cells in REFERENCE_CELLS]  # of the 14 cells of a window, by reference role


class FocalAttention(nn.Module):
    """Attention of 7x7 windows to 289 keys each (specification of the keys: :mod:`.focal_geometry`).

    The integer buffers are what official checkpoints hold; the geometry tables are used instead.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, num_heads))
        self.relative_position_bias_table_to_neighbors = _table(1, num_heads, TOKENS, len(ring_index()))
        self.register_buffer("relative_position_index", relative_index(WINDOW))
        self.register_buffer("valid_ind_rolled", ring_index())
        self.register_buffer("relative_position_index_0", relative_index(NEIGHBORHOOD))
        for role, neighborhood in enumerate(REFERENCE_NEIGHBORHOODS):
            self.register_buffer(f"relative_position_index_clips_{role}", relative_index(neighborhood))
        self.relative_position_bias_table_to_windows = nn.ParameterList(
            [_table(num_heads, (NEIGHBORHOOD + WINDOW - 1) ** 2)]
        )
        self.relative_position_bias_table_to_windows_clips = nn.ParameterList(
            [_table(num_heads, (n + WINDOW - 1) ** 2) for n in REFERENCE_NEIGHBORHOODS]
        )
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def pooled_biases(self) -> list[Tensor]:
        """Bias of the own pooled map and the three references: (heads, 49, n * n) each."""
        tables = [*self.relative_position_bias_table_to_windows, *self.relative_position_bias_table_to_windows_clips]
        indices = [
            self.relative_position_index_0,
            *(getattr(self, f"relative_position_index_clips_{role}") for role in range(len(REFERENCE_CELLS))),
        ]
        return [table[:, index] for table, index in zip(tables, indices)]

    def window_bias(self) -> Tensor:
        """Bias inside the window: (heads, 49, 49)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def bias(self) -> Tensor:
        """The bias of all keys in the order of the table: (heads, 49, 289)."""
        ring = self.relative_position_bias_table_to_neighbors[0]
        return torch.cat([self.window_bias(), ring, *self.pooled_biases()], -1)


class FocalBlock(nn.Module):
    """One block: norm, pooling, focal attention, perceptron; only the target frame changes."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.pool_layers = nn.ModuleList([_pool(WINDOW)])
        self.pool_layers_clips = nn.ModuleList([_pool(WINDOW // cells) for cells in REFERENCE_CELLS])
        self.norm1 = LayerNorm(dim)
        self.attn = FocalAttention(dim, num_heads)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def reference_pooling(self) -> tuple[Tensor, Tensor]:
        """Pooling of a window's 49 tokens into the 14 cells of the three roles: matrix (14, 49), offset (14,).

        Resizing to 6x6 and the weighted sum over cells are both linear and stay inside the window.
        """
        resize = resize_matrix().to(self.pool_layers_clips[0].weight)
        rows, offsets = [self.pool_layers_clips[0].weight], [self.pool_layers_clips[0].bias]
        for layer, cells in zip(self.pool_layers_clips[1:], REFERENCE_CELLS[1:]):
            side = WINDOW // cells
            axis = resize.view(cells, side, WINDOW)
            matrix = torch.einsum("uv,auy,bvx->abyx", layer.weight.view(side, side), axis, axis)
            rows.append(matrix.reshape(cells**2, TOKENS))
            offsets.append(layer.bias.expand(cells**2))
        return torch.cat(rows), torch.cat(offsets)

    def update(self, x: Tensor, references: list[Tensor], geometry: FocalGeometry, bias: FocalBias) -> Tensor:
        """The target's tokens after this block.

        Args:
            x: (B, N, C) tokens of the target, row-major; overwritten when no graph is built.
            references: pooled maps of the three roles, (B, W * cells, C) each.
        """
        dim, attn = x.shape[-1], self.attn
        y = F.pad(self.norm1(x), (0, 0, 0, 1))  # (B, N + 1, C); the last row is the padding to whole windows
        windows = gather_rows(y, geometry.queries)  # (B, W, 49, C)
        pool = self.pool_layers[0]
        own = (pool.weight @ windows).squeeze(2) + pool.bias  # (B, W, C)
        rows = torch.cat([y, own, *references], 1)
        query = linear(windows, attn.qkv.weight[:dim], attn.qkv.bias[:dim])
        table = linear(rows, attn.qkv.weight[dim:], attn.qkv.bias[dim:])  # (B, rows, 2C)
        out = attn.proj(bias.attend(query, table, geometry))  # (B, N, C)
        x = x + out if torch.is_grad_enabled() else x.add_(out)
        return self.mlp.add_to(x, self.norm2(x))


class FoldedFocal(NamedTuple):
    """What the weights of all blocks come to, whatever the frames are."""

    biases: list[FocalBias]  # the assembled bias of every block
    pooling: Tensor  # (depth * 14, 49): every block's pooling of a reference's window into the cells of the three roles
    offsets: Tensor  # (depth, 14), added to the cells


class FocalDecoder(nn.Module):
    """The focal blocks of CFFM (``decoder_focal``): the target frame mines three reference frames.

    Args:
        dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden over outer channels of the perceptrons.
    """

    def __init__(self, dim: int, depth: int, num_heads: int = 8, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([FocalBlock(dim, num_heads, mlp_ratio) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, K, C, h, w) of a clip -> the same with the last frame replaced.

        The references are frames 0, 1, 2, whatever K >= 3 is.
        """
        return torch.cat([x[:, :-1], self.mine(x.unbind(1))[:, None]], 1)

    def mine(self, frames: Sequence[Tensor]) -> Tensor:
        """The updated last frame (B, C, h, w) of a clip of K frames (B, C, h, w)."""
        size = frames[-1].shape[-2:]
        roles = min(len(REFERENCE_CELLS), len(frames) - 1)  # a clip of three has the target as its own reference
        folded = self.fold()
        maps = [self.reference_maps(to_tokens(frame), *size, folded) for frame in frames[:roles]]
        target = to_tokens(frames[-1])  # (B, N, C)
        if not torch.is_grad_enabled():
            target = target.clone()  # which the update writes into
        return to_map(self.update(target, maps, *size, folded), *size)

    def reference_maps(self, x: Tensor, h: int, w: int, folded: FoldedFocal | None = None) -> Tensor:
        """All that the blocks need of reference frames, in every role.

        Args:
            x: (n, N, C) row-major tokens of n frames of h x w tokens.
            folded: what :meth:`fold` gave; made here if None.

        Returns:
            (n, depth, W, 14, C): per block and window the pooled normalised cells, 1 + 4 + 9 for the three roles.
        """
        geometry, dim = focal_geometry(h, w, x.device), x.shape[-1]
        # every block normalises the same frame with its own affine part, which moves behind the linear pooling
        y = F.pad(layer_norm(x, (dim,), eps=self.blocks[0].norm1.eps), (0, 0, 0, 1))
        matrix, offsets = (folded or self.fold())[1:]
        pooled = matrix @ gather_rows(y, geometry.queries)  # (n, W, depth * 14, C)
        inside = (geometry.queries < h * w).to(x.dtype)  # (W, 49); the padding stays zero, whatever the shift
        reached = inside @ matrix.t()  # (W, depth * 14)
        depth, maps = len(self.blocks), []
        for block, part, reach, offset in zip(self.blocks, pooled.chunk(depth, 2), reached.chunk(depth, 1), offsets):
            shift = reach[..., None] * block.norm1.bias + offset[:, None]  # (W, 14, C)
            maps.append(part * block.norm1.weight + shift)
        return torch.stack(maps, 1)

    def fold(self) -> FoldedFocal:
        """See :class:`FoldedFocal`."""
        with full_precision(self.blocks[0].norm1.weight):
            poolings = [block.reference_pooling() for block in self.blocks]
            matrix, offsets = torch.cat([m for m, _ in poolings]), torch.stack([offset for _, offset in poolings])
            return FoldedFocal([FocalBias(b.attn.bias(), b.attn.scale) for b in self.blocks], matrix, offsets)

    def update(self, x: Tensor, references: list[Tensor], h: int, w: int, folded: FoldedFocal | None = None) -> Tensor:
        """The target's tokens after all blocks.

        Args:
            x: (B, N, C) row-major tokens of the target; overwritten when no graph is built.
            references: :meth:`reference_maps` of the three reference frames (B of each), oldest first; with only
                two of them, the target itself, as it stands before each block, is the third.
            folded: what :meth:`fold` gave; made here if None.
        """
        geometry = focal_geometry(h, w, x.device)
        folded = folded or self.fold()
        for number, (block, bias) in enumerate(zip(self.blocks, folded.biases)):
            maps = references
            if len(references) < len(_ROLE_CELLS):
                maps = [*references, self.reference_maps(x, h, w, folded)]
            roles = [frame[:, number].split(_ROLE_CELLS, 2)[role] for role, frame in enumerate(maps)]
            x = block.update(x, [role.flatten(1, 2) for role in roles], geometry, bias)
        return x


def to_tokens(x: Tensor) -> Tensor:
    """(..., C, h, w) -> (..., h * w, C), without a copy for maps that are stored channels last."""
    return x.movedim(-3, -1).flatten(-3, -2).contiguous()


def to_map(tokens: Tensor, h: int, w: int) -> Tensor:
    """(..., h * w, C) -> (..., C, h, w), without a copy."""
    return tokens.unflatten(-2, (h, w)).movedim(-1, -3)


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def _pool(side: int) -> nn.Linear:
    """A weighted sum over side x side positions, shared by all channels, that starts as their average."""
    layer = nn.Linear(side**2, 1)
    nn.init.constant_(layer.weight, 1 / side**2)
    nn.init.zeros_(layer.bias)
    return layer
