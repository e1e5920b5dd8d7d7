"""The query decoder of the video model: queries of the clip, and a copy of them for every frame.

Only the frames' queries look at tokens. After each layer the clip's queries gather what those of the frames have found
(temporal aggregation); where the frames look next is told by the masks of the clip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmseg.models.decode_heads.themask.decoder import LEVELS, QueryDecoder, clip_masks, level_masks, released
from mmseg.models.decode_heads.themask.pixel_decoder import PixelMaps
from mmseg.models.decode_heads.themask.prediction import Prediction
from mmseg.models.decode_heads.themask.query_layers import MultiheadAttention
from mmseg.models.layers.linear import Linear
from mmseg.registry import MODELS
from mmseg.values import NumClasses

_DROPOUT = 0.1  # of the temporal layer; there is none elsewhere


class TemporalLayer(nn.Module):
    """Starts the queries of clip and frames, and merges those of the frames into those of the clip.

    Its names are those of the published files; "box" marks what belongs to the queries of the frames.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.cross_attn = MultiheadAttention(dim, num_heads, _DROPOUT)
        self.norm1 = nn.LayerNorm(dim)
        self.norm1_box = nn.LayerNorm(dim)
        self.self_attn = MultiheadAttention(dim, num_heads, _DROPOUT)
        self.norm2 = nn.LayerNorm(dim)
        self.self_attn_box = MultiheadAttention(dim, num_heads, _DROPOUT)
        self.norm2_box = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.linear1_box = Linear(dim, hidden_dim)
        self.linear2_box = Linear(hidden_dim, dim)
        self.norm3_box = nn.LayerNorm(dim)
        self.time_attention_weights = Linear(dim, 1)
        self.time_attention = Linear(dim, dim)
        self.reference_points = nn.Linear(dim, 2)  # unused, part of the published files
        self.dropout = nn.Dropout(_DROPOUT)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.reference_points.bias)

    def start(self, query: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The first queries of clips and of their frames.

        Args:
            query, position: (Q, C), the learned ones.
            keys, values: (B, T, S, C), the tokens of all levels with and without their position.

        Returns:
            (B, Q, C) and (B * T, Q, C).
        """
        batch_size, num_frames = keys.shape[:2]
        clips = batch_size if self.training else 1  # until dropout tells them apart, all clips are the same
        query = query.expand(clips, -1, -1)
        placed = query + position
        clip = self.norm2(query + self.dropout(self.self_attn(placed, placed, query)))
        seed = self.norm2_box(query + self.dropout(self.self_attn_box(placed, placed, query)))
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        frames = seed[:, None].expand(batch_size, num_frames, -1, -1).flatten(0, 1)
        frames = self.norm1_box(frames + self.dropout(self.cross_attn(frames + position, keys, values)))
        hidden = self.dropout(self.linear1_box(frames, relu=True))
        frames = self.norm3_box(frames + self.dropout(self.linear2_box(hidden)))
        return clip.expand(batch_size, -1, -1), frames

    def aggregate(self, clip: Tensor, frames: Tensor) -> Tensor:
        """Queries (B, Q, C) of the clips after those of the frames (B, T, Q, C): a mean weighted over time."""
        weights = self.time_attention_weights(frames).softmax(dim=1)
        found = (weights * self.time_attention(frames)).sum(dim=1)
        clip = self.norm1(clip + self.dropout(found))
        hidden = self.dropout(self.linear1(clip, relu=True))
        return self.norm3(clip + self.dropout(self.linear2(hidden)))


@MODELS.register_module()
class VideoQueryDecoder(QueryDecoder):
    """Queries of the clip and of its frames, with predictions of both."""

    new_parts = (  # what a checkpoint of the one-frame model does not have
        "deformabel_transformer_cross_attention_layers",
        "decoder_norm1",
        "decoder_norm2",
        "class_embed_aux",
        "mask_embed_aux",
    )

    def __init__(self, num_classes: NumClasses, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        # the name of the published files; nothing in it is deformable
        self.deformabel_transformer_cross_attention_layers = TemporalLayer(
            self.hidden_dim, self.num_heads, self.ffn_dim
        )
        self.decoder_norm1 = nn.LayerNorm(self.hidden_dim)
        self.decoder_norm2 = nn.LayerNorm(self.hidden_dim)
        self._make_queries()
        self.class_embed = self._classifier()
        self.class_embed_aux = self._classifier()
        self.mask_embed = self._embedder()
        self.mask_embed_aux = self._embedder()

    def forward(self, maps: PixelMaps, batch_size: int, num_frames: int, every: bool | None = None) -> list[Prediction]:
        """See :meth:`QueryDecoder.forward`."""
        every = self.training if every is None else every
        levels, features = self._levels(maps, num_frames), maps.mask_features.unflatten(0, (-1, num_frames))
        temporal, position = self.deformabel_transformer_cross_attention_layers, self.query_embed.weight
        keys, values = (torch.cat([getattr(x, name) for x in levels], dim=2) for name in ("keys", "values"))
        clip, frames = temporal.start(self.query_feat.weight, position, keys, values)
        predictions = []
        for k in range(self.num_layers + 1):
            normed = self.decoder_norm1(clip)
            embedding = self.mask_embed(normed)
            if every or k == self.num_layers:
                predictions.append(self._predict(normed, embedding, frames, features))
            if k == self.num_layers:
                return predictions
            level = levels[k % LEVELS]
            blocked = released(level_masks(embedding, level)).flatten(0, 1)  # (B * T, Q, M)
            cross = self.transformer_cross_attention_layers[k]
            frames = cross(frames, position, level.keys.flatten(0, 1), level.values.flatten(0, 1), blocked)
            frames = self.transformer_self_attention_layers[k](frames, position)
            frames = self.transformer_ffn_layers[k](frames)
            clip = temporal.aggregate(clip, frames.unflatten(0, (-1, num_frames)))

    def _predict(self, normed: Tensor, embedding: Tensor, frames: Tensor, features: Tensor) -> Prediction:
        """Of normed clip queries (B, Q, C) with their mask embedding, and of frame queries (B * T, Q, C)."""
        own = self.decoder_norm2(frames)
        return Prediction(
            self.class_embed(normed),
            clip_masks(embedding, features),
            self.class_embed_aux(own),
            clip_masks(self.mask_embed_aux(own), features.flatten(0, 1)[:, None]),
        )
