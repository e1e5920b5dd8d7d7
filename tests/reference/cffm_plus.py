"""CFFM++ (TPAMI 2024), formula by formula: a frozen CFFM and a branch that attends to prototypes of the whole video.

B clips of T frames, C = 256 channels, N = h * w tokens at 1/8, n prototypes of a video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cffm import clip_loss, half_size, merge_windows, mlp, target_logits, windows_of
from .segformer import conv, frame_logits, fused_feature, layer_norm, linear, mit, resize, split_heads

WINDOW, HEADS = 7, 8


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, prototypes: Tensor | None = None) -> Tensor:
    """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W)."""
    feats = mit(model.backbone, imgs.flatten(0, 1))
    if imgs.shape[1] == model.decode_head.num_clips and prototypes is None:
        prototypes = read_prototypes(model.decode_head, img_metas)
    return resize(forward(model.decode_head, feats, *imgs.shape[:2], prototypes=prototypes), imgs.shape[-2:])


def loss(model: nn.Module, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """Half the cross entropy of A, a constant, plus that of the branch P3; the accuracy is that of A."""
    imgs = batch["img"]
    prototypes = batch.get("prototypes")
    if prototypes is None:
        prototypes = read_prototypes(model.decode_head, batch["img_metas"])
    with torch.no_grad():
        feats = mit(model.backbone, imgs.flatten(0, 1))
    logits = forward(model.decode_head, feats, *imgs.shape[:2], prototypes=prototypes)
    return clip_loss(logits, batch["gt_semantic_seg"])


def forward(
    head: nn.Module, feats: Sequence[Tensor], batch_size: int, num_clips: int, prototypes: Tensor | None = None
) -> Tensor:
    """In training A and P3, (B, T + 1, K, h, w); in eval mode P + P3 / 2 of whole clips, else A of the last frame.

    Everything before the branch is frozen, with the batch norm in eval mode.
    """
    with torch.no_grad():
        fused = fused_feature(head, feats)  # (B * T, C, h4, w4)
        frames = frame_logits(head, fused).unflatten(0, (batch_size, num_clips))
        if not head.training and num_clips != head.num_clips:
            return frames[:, -1]
        fused = fused.unflatten(0, (batch_size, num_clips))
        target = target_logits(head, fused)  # P; in training it is computed and not used
    branch = branch_logits(head, fused, prototypes)
    return torch.cat([frames, branch[:, None]], dim=1) if head.training else target + 0.5 * branch


def branch_logits(head: nn.Module, fused: Tensor, prototypes: Tensor) -> Tensor:
    """P3 (B, K, h4, w4) from F (B, T, C, h4, w4) and prototypes (B, n, C)."""
    mixed = prototype_decoder(head.decoder_swin, half_size(fused)[:, -1], prototypes)
    logits = conv(F.dropout2d(mixed, head.dropout3.p, head.dropout3.training), head.linear_pred3)
    return resize(logits, fused.shape[-2:])


def read_prototypes(head: nn.Module, img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
    """The prototypes (B, n, C) of the samples' videos, from their files."""
    files = [Path(head.save_path) / meta["video"] / "centers.pt" for meta in img_metas]
    return torch.cat([torch.load(file, weights_only=True) for file in files]).to(head.linear_pred3.weight)


# ---------------------------------------------------------------------- the branch


def prototype_decoder(decoder: nn.Module, x: Tensor, prototypes: Tensor) -> Tensor:
    """The map (B, C, h, w) with its video's prototypes (B, n, C) mixed in."""
    x = x.permute(0, 2, 3, 1)
    for block in decoder.blocks:
        x = prototype_block(block, x, prototypes)
    return x.permute(0, 3, 1, 2)


def prototype_block(block: nn.Module, x: Tensor, prototypes: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, h, w, C): attention in windows of 7 x 7 tokens, then a perceptron."""
    batch, h, w, _ = x.shape
    padded = F.pad(layer_norm(x, block.norm1), (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))
    windows = windows_of(padded)  # (B * W', 49, C)
    centers = layer_norm(prototypes, block.norm1).repeat_interleave(len(windows) // batch, dim=0)
    out = prototype_attention(block.attn, windows, centers)
    y = x + merge_windows(out, batch, padded.shape[1] // WINDOW, padded.shape[2] // WINDOW)[:, :h, :w]
    return y + mlp(block.mlp, layer_norm(y, block.norm2))


def prototype_attention(attn: nn.Module, x: Tensor, prototypes: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with queries from tokens (m, L, C), keys and values from prototypes (m, n, C)."""
    query = split_heads(linear(x, attn.qkv).chunk(3, dim=-1)[0], HEADS)  # (m, heads, L, d)
    key, value = (split_heads(part, HEADS) for part in linear(prototypes, attn.qkv_cluster).chunk(2, dim=-1))
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
    return linear((weights @ value).transpose(1, 2).flatten(2), attn.proj_cluster)
