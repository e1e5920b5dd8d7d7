"""Attention of every token to the prototypes of its video (CFFM++, "global temporal contexts")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmseg.models.cpu.attention import attend
from mmseg.models.cpu.linear import linear
from mmseg.models.decode_heads.cffm.focal_geometry import WINDOW, relative_index
from mmseg.models.layers.linear import Linear, Mlp
from mmseg.models.layers.norms import LayerNorm


class PrototypeAttention(nn.Module):
    """Multi-head attention with queries from tokens and keys and values from prototypes.

    Two thirds of `qkv`, `proj` and the position table (with its index) are part of the published files and unused.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_index(WINDOW))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.qkv_cluster = Linear(dim, 2 * dim)
        self.proj_cluster = Linear(dim, dim)

    def forward(self, x: Tensor, prototypes: Tensor, missing: Tensor | None) -> Tensor:
        """Tokens (B, N, C), prototypes (B, n, C), missing (B, n) True for rows to leave out -> (B, N, C)."""
        dim = x.shape[-1]
        key, value = (self._heads(part) for part in self.qkv_cluster(prototypes).chunk(2, -1))
        bias = None
        if missing is not None:
            bias = x.new_zeros(missing.shape).masked_fill(missing, float("-inf"))[:, None, None]  # (B, 1, 1, n)
        query = self._heads(linear(x, self.qkv.weight[:dim], self.qkv.bias[:dim]))
        if bias is None:
            out = attend(query, key, value)
        else:
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.proj_cluster(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, heads, L, C / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class PrototypeBlock(nn.Module):
    """Attention to the prototypes and a perceptron, each after a norm; tokens and prototypes share the first norm."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = PrototypeAttention(dim, num_heads)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, prototypes: Tensor, missing: Tensor | None) -> Tensor:
        """Map (B, h, w, C) -> the same shape."""
        tokens, prototypes = self.norm1(x).flatten(1, 2), self.norm1(prototypes)
        # each token looks at the prototypes alone, so the windows of the paper have no effect
        y = x + self.attn(tokens, prototypes, missing).view_as(x)
        return self.mlp.add_to(y, self.norm2(y))


class PrototypeDecoder(nn.Module):
    """The prototype branch of CFFM++ (``decoder_swin``): blocks of attention to the video's prototypes.

    Args:
        dim: channels of tokens and prototypes.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden over outer channels of the perceptrons.
    """

    def __init__(self, dim: int, depth: int = 1, num_heads: int = 8, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([PrototypeBlock(dim, num_heads, mlp_ratio) for _ in range(depth)])

    def forward(self, x: Tensor, prototypes: Tensor | Sequence[Tensor]) -> Tensor:
        """The map with its video's prototypes mixed in.

        Args:
            x: (B, C, h, w).
            prototypes: (B, n, C), or one (n, C) per sample, whose n may differ.

        Returns:
            (B, C, h, w).
        """
        prototypes, missing = stack_prototypes(prototypes)
        x = x.permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            x = block(x, prototypes, missing)
        return x.permute(0, 3, 1, 2)


def stack_prototypes(prototypes: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Prototypes of all samples as (B, n, C), and the rows (B, n) that are padding, or None if there are none."""
    if isinstance(prototypes, Tensor):
        return prototypes, None
    counts = torch.tensor([len(rows) for rows in prototypes])
    if (counts == counts[0]).all():
        return torch.stack(list(prototypes)), None
    missing = torch.arange(int(counts.max())) >= counts[:, None]
    return pad_sequence(list(prototypes), batch_first=True), missing.to(prototypes[0].device)
