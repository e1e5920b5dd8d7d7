"""THE-Mask (BMVC 2023), formula by formula: temporal-aware hierarchical mask classification.

B clips of T frames, Q queries, C channels. Levels l = 0, 1, 2 have strides 32, 16, 8; the masks have stride 4. Every
prediction is made in full, that of every layer, and every mask of attention comes from masks of stride 4. Functions
return intermediate results by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segformer import conv, layer_norm, linear, mit, resize, split_heads, to_tokens
from .themask_loss import layers_of, losses

HEADS, POINTS = 8, 4
Found = dict[str, Tensor]


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, **context: Any) -> Tensor:
    """Scores (B, T, K, H, W) of all frames of clips `imgs` (B, T, 3, H, W)."""
    scores = forward(model.decode_head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    return resize(scores.flatten(0, 1), imgs.shape[-2:]).unflatten(0, imgs.shape[:2])


def loss(model: nn.Module, batch: dict[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """The losses of a batch, by name."""
    imgs, head = batch["img"], model.decode_head
    found = predictions(head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    found = losses(head.criterion, layers_of(found, is_video(head)), batch["gt_semantic_seg"], iteration)
    return {f"decode.{name}": value for name, value in found.items()}


def forward(head: nn.Module, feats: Sequence[Tensor], batch_size: int, num_frames: int) -> Tensor:
    """Scores (B, T, K, h, w) of clips from the maps [(B * T, C_s, h_s, w_s)] of all their frames."""
    return scores_of_clips(head, pixel_decoder(head.pixel_decoder, feats), batch_size, num_frames)


def scores_of_clips(head: nn.Module, pixels: Found, batch_size: int, num_frames: int) -> Tensor:
    """:func:`forward` from what the pixel decoder has made of the frames, each by itself."""
    found = decoded(head, pixels, batch_size, num_frames)
    last = len(head.predictor.transformer_ffn_layers)
    if not is_video(head):
        return scores(found[f"logits.{last}"], found[f"masks.{last}"])
    of_frames = scores(found[f"frame.logits.{last}"], found[f"frame.masks.{last}"])[:, 0]
    of_clips = scores(found[f"main.logits.{last}"], found[f"main.masks.{last}"])
    return 0.5 * of_clips + 0.5 * of_frames.unflatten(0, (batch_size, num_frames))


def scores(logits: Tensor, masks: Tensor) -> Tensor:
    """S[t, c] = sum over queries of P(c) sigmoid(mask): (n, T, K, h, w) of (n, Q, K + 1) and (n, Q, T, h, w)."""
    return torch.einsum("nqc,nqthw->ntchw", logits.softmax(-1)[..., :-1], masks.sigmoid())


def predictions(head: nn.Module, feats: Sequence[Tensor], batch_size: int, num_frames: int) -> Found:
    """Everything between the maps of the backbone and the predictions after each layer."""
    pixels = pixel_decoder(head.pixel_decoder, feats)
    return {**pixels, **decoded(head, pixels, batch_size, num_frames)}


def decoded(head: nn.Module, pixels: Found, batch_size: int, num_frames: int) -> Found:
    """The predictions after each layer of the query decoder."""
    decode = video_decoder if is_video(head) else frame_decoder
    return decode(head.predictor, pixels, batch_size, num_frames)


def is_video(head: nn.Module) -> bool:
    """Whether frames have queries of their own."""
    return hasattr(head.predictor, "class_embed_aux")


# ---------------------------------------------------------------------- pixel decoder


def pixel_decoder(decoder: nn.Module, feats: Sequence[Tensor]) -> Found:
    """Multi-scale features and mask features of n frames."""
    found: Found = {}
    maps = [normed(project[1], conv(x, project[0])) for project, x in zip(decoder.input_proj, feats[:0:-1])]
    sizes = [tuple(x.shape[-2:]) for x in maps]
    tokens = torch.cat([to_tokens(x) for x in maps], 1)  # (n, S, C)
    codes = [position_2d(*size, tokens.shape[-1]).to(e) + e for size, e in zip(sizes, decoder.transformer.level_embed)]
    position, centres = torch.cat(codes), torch.cat([pixel_centres(*size) for size in sizes])
    for i, layer in enumerate(decoder.transformer.encoder.layers):
        x = deformable_attention(layer.self_attn, tokens + position, centres, tokens, sizes)
        tokens = layer_norm(tokens + x, layer.norm1)
        hidden = F.relu(linear(tokens, layer.linear1))
        tokens = layer_norm(tokens + linear(hidden, layer.linear2), layer.norm2)
        found[f"encoder.{i}"] = tokens
    parts = tokens.split([h * w for h, w in sizes], 1)
    levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes)]
    found["adapter_1"] = normed(decoder.adapter_1.norm, F.conv2d(feats[0], decoder.adapter_1.weight))
    x = found["adapter_1"] + resize(levels[2], feats[0].shape[-2:])
    found["layer_1"] = F.relu(normed(decoder.layer_1.norm, F.conv2d(x, decoder.layer_1.weight, padding=1)))
    found["mask_features"] = conv(found["layer_1"], decoder.mask_features)
    names = {"input_proj": maps, "multi_scale": levels}
    return {**found, **{f"{name}.{i}": x for name, maps in names.items() for i, x in enumerate(maps)}}


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, norm.weight, norm.bias, 1e-5)


def deformable_attention(
    attn: nn.Module, query: Tensor, centres: Tensor, tokens: Tensor, sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """Every query (n, L, C) reads POINTS tokens of every level and head around its place `centres` (L, 2)."""
    per_query = (HEADS, len(sizes), POINTS)
    offsets = linear(query, attn.sampling_offsets).unflatten(-1, (*per_query, 2))
    weights = linear(query, attn.attention_weights).unflatten(-1, (HEADS, -1)).softmax(-1)
    scale = torch.tensor([(w, h) for h, w in sizes]).to(offsets)[:, None]  # (levels, 1, 2)
    locations = centres.to(offsets)[None, :, None, None, None] + offsets / scale
    value = linear(tokens, attn.value_proj).unflatten(-1, (HEADS, -1))  # (n, S, heads, d)
    return linear(sampled(value, sizes, locations, weights.unflatten(-1, per_query[1:])), attn.output_proj)


def sampled(value: Tensor, sizes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """sum over levels and points of weight * value(location): (n, L, heads * d).

    Args:
        value: (n, S, heads, d).
        locations: (n, L, heads, levels, points, 2) in [0, 1].
        weights: (n, L, heads, levels, points).
    """
    n, length, heads = locations.shape[:3]
    samples = []
    for level, (part, size) in enumerate(zip(value.split([h * w for h, w in sizes], 1), sizes)):
        maps = part.flatten(2).transpose(1, 2).reshape(n * heads, -1, *size)  # (n * heads, d, h, w)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)  # (n * heads, L, points, 2)
        samples.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(n * heads, 1, length, -1)
    out = (torch.stack(samples, -2).flatten(-2) * weights).sum(-1)  # (n * heads, d, L)
    return out.view(n, -1, length).transpose(1, 2)


def pixel_centres(h: int, w: int) -> Tensor:
    """(h * w, 2) in [0, 1], x first."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def axis_code(length: int, features: int) -> Tensor:
    """(length, features): sin and cos, in turn, of the positions 1 .. length as angles up to 2 pi."""
    position = torch.arange(1, length + 1).float() / (length + 1e-6) * 2 * math.pi
    feature = torch.arange(features)
    angle = position[:, None] / 10000 ** (2 * (feature // 2) / features)
    return torch.where(feature % 2 == 0, angle.sin(), angle.cos())


def position_2d(h: int, w: int, channels: int) -> Tensor:
    """(h * w, channels): half of the channels for y, half for x."""
    y, x = axis_code(h, channels // 2), axis_code(w, channels // 2)
    return torch.cat([y[:, None].expand(h, w, -1), x[None].expand(h, w, -1)], -1).flatten(0, 1)


def position_3d(num_frames: int, h: int, w: int, channels: int) -> Tensor:
    """(T, h * w, channels): :func:`position_2d` plus a code of the frame that takes all channels."""
    return position_2d(h, w, channels) + axis_code(num_frames, channels)[:, None]


# ---------------------------------------------------------------------- query decoders


def tokens_of(predictor: nn.Module, found: Found, num_frames: int) -> tuple[list[Tensor], list[Tensor]]:
    """The tokens of each level and their position codes, (B, T, M, C) and (T, M, C)."""
    tokens, codes = [], []
    for level in range(3):
        x = found[f"multi_scale.{level}"]
        tokens.append((to_tokens(x) + predictor.level_embed.weight[level]).unflatten(0, (-1, num_frames)))
        codes.append(position_3d(num_frames, *x.shape[-2:], x.shape[1]).to(x))
    return tokens, codes


def frame_decoder(predictor: nn.Module, found: Found, batch_size: int, num_frames: int) -> Found:
    """One set of queries that looks at all frames of a clip together."""
    tokens, codes = tokens_of(predictor, found, num_frames)
    features = found["mask_features"].unflatten(0, (batch_size, num_frames))
    qp = predictor.query_embed.weight
    q = predictor.query_feat.weight.expand(batch_size, -1, -1)
    out: Found = {}
    for k in range(len(predictor.transformer_ffn_layers) + 1):
        x = layer_norm(q, predictor.decoder_norm)
        out[f"logits.{k}"] = linear(x, predictor.class_embed)
        out[f"masks.{k}"] = masks_of(perceptron(predictor.mask_embed, x), features)
        if k == len(predictor.transformer_ffn_layers):
            return out
        level = k % 3
        blocked = blocked_keys(out[f"masks.{k}"], found[f"multi_scale.{level}"].shape[-2:]).flatten(2)
        keys, code = tokens[level].flatten(1, 2), codes[level].flatten(0, 1)
        q = cross_attention(predictor.transformer_cross_attention_layers[k], q, qp, keys, code, blocked)
        q = self_attention_and_ffn(predictor, k, q, qp)
        out[f"query.{k + 1}"] = q.transpose(0, 1)


def video_decoder(predictor: nn.Module, found: Found, batch_size: int, num_frames: int) -> Found:
    """Queries of the clip, q (B, Q, C), and of its frames, f (B * T, Q, C), which alone look at tokens."""
    tokens, codes = tokens_of(predictor, found, num_frames)
    features = found["mask_features"].unflatten(0, (batch_size, num_frames))
    d, qp = predictor.deformabel_transformer_cross_attention_layers, predictor.query_embed.weight
    q, f = first_queries(d, predictor.query_feat.weight, qp, torch.cat(tokens, 2), torch.cat(codes, 1))
    out: Found = {}
    for k in range(len(predictor.transformer_ffn_layers) + 1):
        out[f"query.{k}"], out[f"query_frame.{k}"] = q, f.unflatten(0, (batch_size, num_frames))
        x, y = layer_norm(q, predictor.decoder_norm1), layer_norm(f, predictor.decoder_norm2)
        out[f"main.logits.{k}"] = linear(x, predictor.class_embed)
        out[f"main.masks.{k}"] = masks_of(perceptron(predictor.mask_embed, x), features)
        out[f"frame.logits.{k}"] = linear(y, predictor.class_embed_aux)
        out[f"frame.masks.{k}"] = masks_of(perceptron(predictor.mask_embed_aux, y), features.flatten(0, 1)[:, None])
        if k == len(predictor.transformer_ffn_layers):
            return out
        level = k % 3
        frame_wise = out[f"main.masks.{k}"].transpose(1, 2).flatten(0, 1)[:, :, None]  # (B * T, Q, 1, h, w)
        blocked = blocked_keys(frame_wise, found[f"multi_scale.{level}"].shape[-2:]).flatten(2)
        keys, code = tokens[level].flatten(0, 1), codes[level].repeat(batch_size, 1, 1)
        f = cross_attention(predictor.transformer_cross_attention_layers[k], f, qp, keys, code, blocked)
        f = self_attention_and_ffn(predictor, k, f, qp)
        q = aggregated(d, q, f.unflatten(0, (batch_size, num_frames)))


def first_queries(d: nn.Module, q0: Tensor, qp: Tensor, tokens: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Queries of clips and frames before the first layer, from the tokens (B, T, S, C) of all levels."""
    batch_size, num_frames = tokens.shape[:2]
    q0 = q0.expand(batch_size, -1, -1)
    q = layer_norm(q0 + dropout(d, attention(d.self_attn, q0 + qp, q0 + qp, q0)), d.norm2)
    f = layer_norm(q0 + dropout(d, attention(d.self_attn_box, q0 + qp, q0 + qp, q0)), d.norm2_box)
    f, values = f.repeat_interleave(num_frames, 0), tokens.flatten(0, 1)
    keys = values + code.repeat(batch_size, 1, 1)
    f = layer_norm(f + dropout(d, attention(d.cross_attn, f + qp, keys, values)), d.norm1_box)
    hidden = dropout(d, F.relu(linear(f, d.linear1_box)))
    return q, layer_norm(f + dropout(d, linear(hidden, d.linear2_box)), d.norm3_box)


def aggregated(d: nn.Module, q: Tensor, f: Tensor) -> Tensor:
    """q (B, Q, C) after what the queries f (B, T, Q, C) of the frames have found."""
    w = linear(f, d.time_attention_weights).softmax(1)
    q = layer_norm(q + dropout(d, (w * linear(f, d.time_attention)).sum(1)), d.norm1)
    hidden = dropout(d, F.relu(linear(q, d.linear1)))
    return layer_norm(q + dropout(d, linear(hidden, d.linear2)), d.norm3)


def masks_of(embedding: Tensor, features: Tensor) -> Tensor:
    """masks[b, q, t, y, x] = sum over channels of embedding[b, q] * features[b, t, :, y, x]."""
    return torch.einsum("bqc,btchw->bqthw", embedding, features)


def blocked_keys(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Where masks (n, Q, T, h, w) are off at `size`; a query whose keys are all blocked looks at all of them."""
    small = resize(masks.detach().flatten(0, 1), size).view(*masks.shape[:3], *size)
    blocked = (small.sigmoid() < 0.5).flatten(2)
    return blocked & ~blocked.all(-1, keepdim=True)


def cross_attention(layer: nn.Module, q: Tensor, qp: Tensor, tokens: Tensor, code: Tensor, blocked: Tensor) -> Tensor:
    return layer_norm(q + attention(layer.multihead_attn, q + qp, tokens + code, tokens, blocked), layer.norm)


def self_attention_and_ffn(predictor: nn.Module, k: int, q: Tensor, qp: Tensor) -> Tensor:
    layer, ffn = predictor.transformer_self_attention_layers[k], predictor.transformer_ffn_layers[k]
    q = layer_norm(q + attention(layer.self_attn, q + qp, q + qp, q), layer.norm)
    return layer_norm(q + linear(F.relu(linear(q, ffn.linear1)), ffn.linear2), ffn.norm)


def attention(attn: nn.Module, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v without the blocked pairs (n, L, M), of which every head has a copy."""
    weights, biases = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
    inputs = zip((query, key, value), weights, biases)
    q, k, v = (split_heads(F.linear(x, weight, bias), HEADS) for x, weight, bias in inputs)
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if blocked is not None:
        logits = logits.masked_fill(blocked[:, None].repeat(1, HEADS, 1, 1), -torch.inf)
    weights = F.dropout(logits.softmax(-1), attn.dropout.p, attn.training)
    return linear((weights @ v).transpose(1, 2).flatten(2), attn.out_proj)


def perceptron(mlp: nn.Module, x: Tensor) -> Tensor:
    """Three linear layers with ReLU between them."""
    for layer in mlp.layers[:-1]:
        x = F.relu(linear(x, layer))
    return linear(x, mlp.layers[-1])


def dropout(layer: nn.Module, x: Tensor) -> Tensor:
    return F.dropout(x, layer.dropout.p, layer.training)
