"""MiT and SegFormer's per-frame decoder (arXiv:2105.15203, sections 3.1 and 3.2), formula by formula.

n images, N = h * w tokens of a map (row-major), C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = (1, 2, 5, 8)  # attention heads of the four stages
REDUCTIONS = (8, 4, 2, 1)  # of the sides of the map that keys and values come from
KERNELS, STRIDES = (7, 3, 3, 3), (4, 2, 2, 2)  # of the patch embeddings


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, **context: Any) -> Tensor:
    """Logits (B, K, H, W) of the last frames of `imgs` (B, T, 3, H, W)."""
    logits = forward(model.decode_head, mit(model.backbone, imgs[:, -1]))
    return resize(logits, imgs.shape[-2:])


def loss(model: nn.Module, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """Cross entropy and accuracy over all pixels of all frames; `img` (B, T, 3, H, W), labels (B, T, 1, H, W)."""
    logits = forward(model.decode_head, mit(model.backbone, batch["img"].flatten(0, 1)))
    value, accuracy = cross_entropy(logits, batch["gt_semantic_seg"].flatten(0, 2))
    return {"decode.loss_seg": value, "decode.acc_seg": accuracy}


def forward(head: nn.Module, feats: Sequence[Tensor], *clips: Any) -> Tensor:
    """Logits A (n, K, h, w) of every image from its maps [(n, C_s, h_s, w_s)], finest first."""
    return frame_logits(head, fused_feature(head, feats))


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """Cross entropy of `logits` (n, K, h, w) at the size of `labels` (n, H, W), and the accuracy in percent.

    Both are means over all pixels: ignored ones contribute 0 and are counted.
    """
    logits = resize(logits, labels.shape[-2:])
    per_pixel = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")  # (n, H, W)
    return per_pixel.mean(), 100 * (logits.argmax(dim=1) == labels).float().mean()


# ---------------------------------------------------------------------- the decoder


def fused_feature(head: nn.Module, feats: Sequence[Tensor]) -> Tensor:
    """F (n, dim, h, w): every map to `dim` channels, to the finest size, concatenated coarse to fine, mixed."""
    projections = [getattr(head, f"linear_c{s}").proj for s in (1, 2, 3, 4)]
    levels = [linear(feat.permute(0, 2, 3, 1), layer) for feat, layer in zip(feats, projections)]  # (n, h_s, w_s, dim)
    levels = [resize(level.permute(0, 3, 1, 2), feats[0].shape[-2:]) for level in levels]
    mixed = F.conv2d(torch.cat(levels[::-1], dim=1), head.linear_fuse.conv.weight)
    if hasattr(head.linear_fuse, "gn"):
        norm = head.linear_fuse.gn
        return F.relu(F.group_norm(mixed, 1, norm.weight, norm.bias, 1e-5))
    norm = head.linear_fuse.bn
    mean, var = norm.running_mean, norm.running_var
    return F.relu(F.batch_norm(mixed, mean, var, norm.weight, norm.bias, norm.training, 0.1, 1e-5))


def frame_logits(head: nn.Module, fused: Tensor) -> Tensor:
    """A (n, K, h, w) from F (n, dim, h, w)."""
    return conv(F.dropout2d(fused, head.dropout.p, head.dropout.training), head.linear_pred)


# ---------------------------------------------------------------------- the backbone


def mit(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """The four maps [(n, C_s, h_s, w_s)] of strides 4, 8, 16, 32 of images (n, 3, H, W)."""
    maps = []
    for s in range(4):
        tokens, h, w = patch_embedding(getattr(backbone, f"patch_embed{s + 1}"), x, KERNELS[s], STRIDES[s])
        for block in getattr(backbone, f"block{s + 1}"):
            tokens = transformer_block(block, tokens, h, w, HEADS[s], REDUCTIONS[s])
        tokens = layer_norm(tokens, getattr(backbone, f"norm{s + 1}"), 1e-6)
        x = to_map(tokens, h, w)
        maps.append(x)
    return maps


def patch_embedding(embed: nn.Module, x: Tensor, kernel: int, stride: int) -> tuple[Tensor, int, int]:
    """Tokens (n, N, C) of a map (n, C_in, H, W), and the sides h, w of their map."""
    x = conv(x, embed.proj, stride, kernel // 2)
    return layer_norm(to_tokens(x), embed.norm, 1e-5), *x.shape[-2:]


def transformer_block(block: nn.Module, x: Tensor, h: int, w: int, num_heads: int, reduction: int) -> Tensor:
    """Tokens (n, N, C) -> (n, N, C)."""
    y = attention(block.attn, layer_norm(x, block.norm1, 1e-6), h, w, num_heads, reduction)
    x = x + drop_path(y, block.drop_path)
    y = mix_ffn(block.mlp, layer_norm(x, block.norm2, 1e-6), h, w)
    return x + drop_path(y, block.drop_path)


def attention(attn: nn.Module, x: Tensor, h: int, w: int, num_heads: int, reduction: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with keys and values from the map reduced by `reduction` a side: (n, N, C)."""
    query = split_heads(linear(x, attn.q), num_heads)  # (n, heads, N, d)
    if reduction > 1:
        x = to_tokens(conv(to_map(x, h, w), attn.sr, reduction))  # (n, (h // r) * (w // r), C)
        x = layer_norm(x, attn.norm, 1e-5)
    key, value = (split_heads(part, num_heads) for part in linear(x, attn.kv).chunk(2, dim=-1))
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return linear((weights @ value).transpose(1, 2).flatten(2), attn.proj)


def mix_ffn(mlp: nn.Module, x: Tensor, h: int, w: int) -> Tensor:
    """Linear, 3x3 depth-wise convolution, GELU, linear: (n, N, C) -> (n, N, C)."""
    x = to_map(linear(x, mlp.fc1), h, w)  # (n, 4C, h, w)
    conv3x3 = mlp.dwconv.dwconv
    x = F.conv2d(x, conv3x3.weight, conv3x3.bias, padding=1, groups=x.shape[1])
    return linear(F.gelu(to_tokens(x)), mlp.fc2)


def drop_path(x: Tensor, layer: nn.Module) -> Tensor:
    """In training, 0 with the layer's probability for a whole sample, else scaled to keep the mean."""
    if not layer.training or layer.drop_prob == 0:
        return x
    keep = 1 - layer.drop_prob
    return x * x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep


# ---------------------------------------------------------------------- words of all the files here


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def conv(x: Tensor, layer: nn.Module, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, stride, padding)


def layer_norm(x: Tensor, layer: nn.Module, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, eps)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, half-pixel centres, no antialiasing: (n, C, h, w) -> (n, C, *size)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(n, L, C) -> (n, heads, L, C / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """(n, C, h, w) -> (n, h * w, C)."""
    return x.flatten(2).transpose(1, 2).contiguous()


def to_map(x: Tensor, h: int, w: int) -> Tensor:
    """(n, h * w, C) -> (n, C, h, w)."""
    return x.transpose(1, 2).unflatten(2, (h, w)).contiguous()
