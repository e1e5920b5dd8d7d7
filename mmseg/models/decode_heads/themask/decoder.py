"""Query decoders: what both have in common, and the one of the one-frame model.

Q queries look at the tokens of all frames where their masks let them (masked attention, arXiv:2112.01527), at each
other, and predict again, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.cpu.linear import products, products_by_column
from mmseg.models.decode_heads.themask.pixel_decoder import PixelMaps
from mmseg.models.decode_heads.themask.position import code_3d
from mmseg.models.decode_heads.themask.prediction import Prediction
from mmseg.models.decode_heads.themask.query_layers import MLP, CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from mmseg.models.layers import full_precision
from mmseg.models.layers.resize import resize
from mmseg.registry import MODELS
from mmseg.values import NumClasses, PositiveInt

LEVELS = 3  # strides 32, 16, 8; layer k looks at level k mod 3


@dataclass
class Level:
    """What one level offers to the queries of B clips of T frames with M positions each.

    Attributes:
        values: (B, T, M, C) tokens.
        keys: (B, T, M, C) tokens with their position codes.
        embedding: (B, T, mask_dim, M) mask features at this size.
    """

    values: Tensor
    keys: Tensor
    embedding: Tensor


class QueryDecoder(nn.Module):
    """What the decoders share: queries, layers and the way from pixel maps to keys.

    Args:
        CONVS_DIM, MASK_DIM: channels of the levels and of the mask features.
        num_classes: K.
        hidden_dim: channels C of the queries, those of the levels.
        num_queries: Q.
        nheads, dim_feedforward, dec_layers: of the layers.
        mask_dim: channels of the mask embeddings, those of the mask features.
        num_frames: frames of a training clip; clips of another length are an error.
        pre_norm, enforce_input_project, transformer_in_feature: must be as they are.

    Attributes:
        num_layers: L; there are L + 1 predictions.

    Raises:
        ConfigError: values that do not fit together.
    """

    def __init__(
        self,
        num_classes: NumClasses,
        CONVS_DIM: PositiveInt = 256,
        MASK_DIM: PositiveInt = 256,
        hidden_dim: PositiveInt = 256,
        num_queries: PositiveInt = 100,
        nheads: PositiveInt = 8,
        dim_feedforward: PositiveInt = 2048,
        dec_layers: PositiveInt = 9,
        mask_dim: PositiveInt = 256,
        num_frames: PositiveInt = 1,
        pre_norm: Literal[False] = False,
        enforce_input_project: Literal[False] = False,
        transformer_in_feature: Literal["multi_scale_pixel_decoder"] = "multi_scale_pixel_decoder",
    ) -> None:
        super().__init__()
        _check(CONVS_DIM, MASK_DIM, hidden_dim, mask_dim, nheads)
        self.num_classes, self.hidden_dim, self.num_queries, self.mask_dim = (
            num_classes,
            hidden_dim,
            num_queries,
            mask_dim,
        )
        self.num_layers, self.num_frames = dec_layers, num_frames
        self.num_heads, self.ffn_dim = nheads, dim_feedforward
        layers = range(dec_layers)
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(hidden_dim, nheads) for _ in layers)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(hidden_dim, nheads) for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FFNLayer(hidden_dim, dim_feedforward) for _ in layers)

    def _make_queries(self) -> None:
        self.query_feat = nn.Embedding(self.num_queries, self.hidden_dim)  # learned content
        self.query_embed = nn.Embedding(self.num_queries, self.hidden_dim)  # learned position
        self.level_embed = nn.Embedding(LEVELS, self.hidden_dim)

    def _classifier(self) -> nn.Linear:
        return nn.Linear(self.hidden_dim, self.num_classes + 1)

    def _embedder(self) -> MLP:
        return MLP(self.hidden_dim, self.hidden_dim, self.mask_dim)

    def _levels(self, maps: PixelMaps, num_frames: int) -> list[Level]:
        """Tokens, keys and small mask features of every level.

        Interpolation commutes with the sum over channels that makes masks of mask features, so the masks that steer
        the attention are made at the size of the level.
        """
        levels = []
        for x, embed in zip(maps.levels, self.level_embed.weight):
            h, w = x.shape[-2:]
            tokens = x.flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames)) + embed  # (B, T, M, C)
            code = code_3d(num_frames, h, w, tokens.shape[-1], x.device).to(tokens.dtype)
            small = resize(maps.mask_features.detach(), (h, w)).flatten(2).unflatten(0, (-1, num_frames))
            levels.append(Level(tokens, tokens + code, small))
        return levels

    def forward(self, maps: PixelMaps, batch_size: int, num_frames: int, every: bool | None = None) -> list[Prediction]:
        """Predictions for B clips of T frames.

        Args:
            maps: of all B * T frames, clip after clip.
            every: all L + 1 predictions, before the first layer and after each; otherwise the last one alone.
                Default: in training mode.
        """
        raise NotImplementedError


@MODELS.register_module()
class FrameQueryDecoder(QueryDecoder):
    """One set of queries for all frames of a clip, whose tokens they see together."""

    def __init__(self, num_classes: NumClasses, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.decoder_norm = nn.LayerNorm(self.hidden_dim)
        self._make_queries()
        self.class_embed = self._classifier()
        self.mask_embed = self._embedder()

    def forward(self, maps: PixelMaps, batch_size: int, num_frames: int, every: bool | None = None) -> list[Prediction]:
        """See :meth:`QueryDecoder.forward`."""
        every = self.training if every is None else every
        levels, features = self._levels(maps, num_frames), maps.mask_features.unflatten(0, (-1, num_frames))
        position = self.query_embed.weight
        query = self.query_feat.weight.expand(batch_size, -1, -1)  # (B, Q, C)
        predictions = []
        for k in range(self.num_layers + 1):
            normed = self.decoder_norm(query)
            embedding = self.mask_embed(normed)
            if every or k == self.num_layers:
                predictions.append(Prediction(self.class_embed(normed), clip_masks(embedding, features)))
            if k == self.num_layers:
                return predictions
            level = levels[k % LEVELS]
            blocked = level_masks(embedding, level).transpose(1, 2).flatten(2)  # (B, Q, T * M)
            keys, values = level.keys.flatten(1, 2), level.values.flatten(1, 2)  # (B, T * M, C)
            cross = self.transformer_cross_attention_layers[k]
            query = cross(query, position, keys, values, released(blocked))
            query = self.transformer_self_attention_layers[k](query, position)
            query = self.transformer_ffn_layers[k](query)


def clip_masks(embedding: Tensor, features: Tensor) -> Tensor:
    """Mask logits (B, Q, T, h, w) of embeddings (B, Q, C) in the mask features (B, T, C, h, w) of all frames."""
    batch_size, num_frames = features.shape[:2]
    pixels = features.flatten(3).flatten(0, 1).transpose(1, 2)  # (B * T, h * w, C)
    embedding = embedding.repeat_interleave(num_frames, dim=0)
    masks = products_by_column(embedding, pixels).unflatten(0, (batch_size, num_frames))  # (B, T, Q, h * w)
    return masks.transpose(1, 2).unflatten(3, features.shape[-2:])


@torch.no_grad()
def level_masks(embedding: Tensor, level: Level) -> Tensor:
    """Where the masks of a level are off: bool (B, T, Q, M) for embeddings (B, Q, C)."""
    with full_precision(embedding):
        dtype, num_frames = torch.promote_types(embedding.dtype, level.embedding.dtype), level.embedding.shape[1]
        pixels = level.embedding.flatten(0, 1).to(dtype)
        masks = products(embedding.repeat_interleave(num_frames, dim=0).to(dtype), pixels.transpose(1, 2))
        return masks.unflatten(0, (-1, num_frames)) < 0


def released(blocked: Tensor) -> Tensor:
    """`blocked` (..., M) without the rows that are blocked everywhere: they attend to everything."""
    return blocked & ~blocked.all(dim=-1, keepdim=True)


def _check(convs_dim: int, mask_features: int, hidden_dim: int, mask_dim: int, num_heads: int) -> None:
    if convs_dim != hidden_dim or mask_features != mask_dim:
        raise ConfigError(
            f"CONVS_DIM={convs_dim}, hidden_dim={hidden_dim}, MASK_DIM={mask_features}, mask_dim={mask_dim}",
            "hidden_dim = CONVS_DIM and mask_dim = MASK_DIM: nothing is projected between the two decoders",
            "make them equal",
        )
    if hidden_dim % (2 * num_heads):
        raise ConfigError(
            f"hidden_dim={hidden_dim} with nheads={num_heads}", "an even multiple of the heads", "use 256"
        )
