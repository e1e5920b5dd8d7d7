"""Layers of the query decoders: attention of queries to each other and to maps, and perceptrons, each with its norm."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.models.cpu.linear import linear
from mmseg.models.layers.linear import Linear


class MultiheadAttention(nn.Module):
    """Attention with the parameters of ``nn.MultiheadAttention``; keys and values may be projected beforehand.

    Args:
        dim: channels C.
        num_heads: heads; scores are scaled by ``(C / heads) ** -0.5``.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attention of L queries to M keys.

        Args:
            query: (n, L, C).
            key, value: (n, M, C).
            blocked: (n, L, M) bool, True where a query must not look; the same for all heads.

        Returns:
            (n, L, C).
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (n, heads, L or M, d)
            for x, weight, bias in zip((query, key, value), weights, biases)
        )
        allowed = None if blocked is None else ~blocked[:, None]
        dropout = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class SelfAttentionLayer(nn.Module):
    """Queries look at each other: ``norm(q + attention)``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, position: Tensor) -> Tensor:
        """`query` (n, Q, C) with its `position` (Q, C) -> (n, Q, C)."""
        placed = query + position
        return self.norm(query + self.self_attn(placed, placed, query))


class CrossAttentionLayer(nn.Module):
    """Queries look at the tokens of a map where their masks let them: ``norm(q + attention)``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attn = MultiheadAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, position: Tensor, key: Tensor, value: Tensor, blocked: Tensor) -> Tensor:
        """`query` (n, Q, C), `key` and `value` (n, M, C), `blocked` (n, Q, M) -> (n, Q, C)."""
        return self.norm(query + self.multihead_attn(query + position, key, value, blocked))


class FFNLayer(nn.Module):
    """A perceptron: ``norm(q + linear2(relu(linear1(q))))``."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = Linear(dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, query: Tensor) -> Tensor:
        """(n, Q, C) -> (n, Q, C)."""
        return self.norm(query + self.linear2(self.linear1(query, relu=True)))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, num_layers: int = 3) -> None:
        super().__init__()
        widths = [dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return self.layers[-1](x)
