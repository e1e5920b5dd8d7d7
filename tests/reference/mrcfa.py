"""MRCFA (ECCV 2022), formula by formula: relations among cross-frame affinities.

B clips of T = R + 1 frames, oldest first; the last is the target, the R = 3 others are the references. Suffixes
1, 2, 3 of layers are strides 8, 16, 32; q belongs to the target, k to the references. The reference grid has
gh x gw = N tokens, s of which are kept of every reference. Functions return intermediate results by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cffm import clip_loss, half_size
from .segformer import conv, frame_logits, fused_feature, linear, mit, resize

LARGEST = 5  # target positions whose affinities make the score of a reference token


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, **context: Any) -> Tensor:
    """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W)."""
    logits = forward(model.decode_head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    return resize(logits, imgs.shape[-2:])


def loss(model: nn.Module, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """Half the cross entropy of A of all frames plus the mean of those of O_1 .. O_4; the accuracy is that of A."""
    imgs, labels = batch["img"], batch["gt_semantic_seg"]  # (B, T, 3, H, W), (B, T, 1, H, W)
    logits = forward(model.decode_head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    return clip_loss(logits, labels)


def forward(head: nn.Module, feats: Sequence[Tensor], batch_size: int, num_clips: int) -> Tensor:
    """In training A and O_1 .. O_4, (B, T + 4, K, h, w); in eval mode O_4 of whole clips, else A of the last frame."""
    fused = fused_feature(head, feats)  # (B * T, dim, h4, w4)
    frames = frame_logits(head, fused).unflatten(0, (batch_size, num_clips))  # (B, T, K, h4, w4)
    if not head.training and num_clips != head.num_clips:
        return frames[:, -1]
    clips = [feat.unflatten(0, (batch_size, num_clips)) for feat in feats]
    maps = gather(head, clips, fused.unflatten(0, (batch_size, num_clips)))
    outputs = [classify(getattr(head, f"deco{i}"), maps[f"agg{i}"]) for i in (1, 2, 3, 4)]
    outputs = torch.stack([resize(output, fused.shape[-2:]) for output in outputs], dim=1)  # (B, 4, K, h4, w4)
    return torch.cat([frames, outputs], dim=1) if head.training else outputs[:, -1]


def classify(decoder: nn.Module, x: Tensor) -> Tensor:
    """(B, dim, h, w) -> (B, K, h, w)."""
    dropout, classifier = decoder.smalldecoder
    return conv(F.dropout2d(x, dropout.p, dropout.training), classifier)


def gather(head: nn.Module, clips: Sequence[Tensor], fused: Tensor) -> dict[str, Tensor]:
    """What the target gathers from every reference, S_1 .. S_3, and their mean with its own feature, T (B, dim, h, w).

    Args:
        clips: maps [(B, T, C_s, h_s, w_s)], finest first.
        fused: F (B, T, dim, h4, w4).
    """
    _, c2, c3, c4 = clips
    batch, references = len(c2), c2.shape[1] - 1
    r8 = conv(c2[:, :-1].flatten(0, 1), head.sr2, stride=4).unflatten(0, (batch, references))  # (B, R, C2, gh, gw)
    r16 = conv(c3[:, :-1].flatten(0, 1), head.sr3, stride=2).unflatten(0, (batch, references))
    found = affinities(head.hypercorre_module, c2[:, -1], c3[:, -1], c4[:, -1], r8, r16, c4[:, :-1])
    half = half_size(fused)  # G (B, T, dim, h, w)
    tokens = conv(half.flatten(0, 1), head.sr1_feat, stride=4)  # V of all frames
    values = tokens.unflatten(0, half.shape[:2])[:, :-1].flatten(3).transpose(2, 3)  # (B, R, N, dim)
    kept = torch.take_along_dim(values, found["kept"][..., None], dim=2)  # (B, R, s, dim)
    sums = (found["softmax"] @ kept).transpose(2, 3).unflatten(3, half.shape[-2:])  # (B, R, dim, h, w)
    maps = {f"agg{r + 1}": sums[:, r] for r in range(references)}
    maps["agg4"] = sums.mean(dim=1) + half[:, -1]
    return {**found, "ref.s8": r8, "ref.s16": r16, "half": half, "tokens": tokens, **maps}


# ---------------------------------------------------------------------- affinities


def affinities(
    module: nn.Module, t8: Tensor, t16: Tensor, t32: Tensor, r8: Tensor, r16: Tensor, r32: Tensor
) -> dict[str, Tensor]:
    """Refined affinities E (B, R, h8 * w8, s) of the kept tokens and their softmax, and the selection (B, R, N).

    Args:
        t8, t16, t32: maps (B, C, h, w) of the target.
        r8, r16, r32: maps (B, R, C, ., .) of the references; the first two are on the reference grid.
    """
    positions = {"q1": t8, "q2": t16, "q3": t32, "k1": r8, "k2": r16, "k3": r32}
    p = {name: linear(x.movedim(-3, -1), getattr(module, name)) for name, x in positions.items()}  # (..., h, w, C)
    a8, a16, a32 = (
        torch.einsum("bxc,bryc->brxy", p[f"q{i}"].flatten(1, 2), p[f"k{i}"].flatten(2, 3)) for i in (1, 2, 3)
    )  # (B, R, positions of the target, tokens of the reference)
    scores = a32.topk(LARGEST, dim=2).values.sum(dim=2)  # (B, R, h32 * w32)
    size, grid = tuple(r32.shape[-2:]), tuple(r8.shape[-2:])
    if size != grid:
        scores, a32 = resize_tokens(scores, size, grid), resize_tokens(a32, size, grid)
    count = int(grid[0] * grid[1] * module.keep_ratio)
    kept = scores.topk(count, dim=2).indices.sort(dim=2).values  # (B, R, s)
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, kept, True)
    images = [  # (B * R * s, 1, h, w): one image over the target per kept token
        torch.take_along_dim(a.transpose(2, 3), kept[..., None], dim=2).view(-1, 1, *t.shape[-2:])
        for a, t in ((a32, t32), (a16, t16), (a8, t8))
    ]
    refined = refine(module.hpn, *images)
    result = refined["mixed.s8"].view(*mask.shape[:2], count, -1).transpose(2, 3)  # (B, R, h8 * w8, s)
    inputs = dict(zip(("affinity.s32", "affinity.s16", "affinity.s8"), images))
    named = {"scores": scores, "kept": kept, "mask": mask, "affinity": result, "softmax": result.softmax(dim=3)}
    return {**p, **inputs, **refined, **named}


def resize_tokens(x: Tensor, size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Maps over the references' positions (B, ..., h32 * w32), resized to the reference grid (B, ..., N)."""
    maps = x.flatten(0, -2).unflatten(-1, tuple(size))[:, None]
    return resize(maps, grid).flatten(1).view(*x.shape[:-1], -1)


def refine(hpn: nn.Module, x32: Tensor, x16: Tensor, x8: Tensor) -> dict[str, Tensor]:
    """Affinity maps (n, 1, h, w) of n tokens at three strides, cleaned and merged from coarse to fine."""
    x4, x3, x2 = stages(hpn.encoder_layer4, x32), stages(hpn.encoder_layer3, x16), stages(hpn.encoder_layer2, x8)
    mixed16 = stages(hpn.encoder_layer4to3, upsample(x4, x3) + x3)
    mixed8 = stages(hpn.encoder_layer3to2, upsample(mixed16, x2) + x2)
    return {"refined.s32": x4, "refined.s16": x3, "refined.s8": x2, "mixed.s16": mixed16, "mixed.s8": mixed8}


def stages(block: nn.Module, x: Tensor) -> Tensor:
    """One or two times: convolution over the target's positions, group norm with one group, ReLU."""
    layers = list(block)
    for layer, norm in zip(layers[0::3], layers[1::3]):
        x = conv(x, layer.conv2, padding=layer.conv2.kernel_size[0] // 2)
        x = F.relu(F.group_norm(x, 1, norm.weight, norm.bias, 1e-5))
    return x


def upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` at the size of `fine`; the only interpolation of the method that aligns corners."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
