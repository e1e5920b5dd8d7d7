"""CFFM (CVPR 2022), formula by formula: coarse-to-fine feature mining with focal attention.

B clips of T frames, oldest first; the last frame is the target, frames 0, 1, 2 are the references. The map at 1/8 has
h x w tokens, padded to H x W = 7 nh x 7 nw; W' = nh * nw windows of 7 x 7 tokens; C = 256 channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segformer import (
    conv,
    cross_entropy,
    frame_logits,
    fused_feature,
    layer_norm,
    linear,
    mit,
    resize,
    split_heads,
)

WINDOW = 7
HEADS = 8
RING_COPIES = ((3, 3), (3, -3), (-3, 3), (-3, -3))  # offsets (y, x) of the four shifted copies of a window
CELLS = (1, 2, 3)  # per side of a window, of references 0, 1, 2: the older, the coarser
OWN_NEIGHBORHOOD, NEIGHBORHOODS = 5, (7, 5, 3)  # cells seen per side: of the target itself; of references 0, 1, 2
OUTSIDE = -100.0  # added to the logit of a cell outside its pooled map


@torch.no_grad()
def encode_decode(model: nn.Module, imgs: Tensor, img_metas: Any = None, **context: Any) -> Tensor:
    """Logits (B, K, H, W) of the last frames of clips `imgs` (B, T, 3, H, W)."""
    logits = forward(model.decode_head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    return resize(logits, imgs.shape[-2:])


def loss(model: nn.Module, batch: Mapping[str, Any], iteration: int = 0) -> dict[str, Tensor]:
    """Half the cross entropy of A of all frames plus that of P; the accuracy is that of A."""
    imgs, labels = batch["img"], batch["gt_semantic_seg"]  # (B, T, 3, H, W), (B, T, 1, H, W)
    logits = forward(model.decode_head, mit(model.backbone, imgs.flatten(0, 1)), *imgs.shape[:2])
    return clip_loss(logits, labels)


def clip_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The loss of T per-frame predictions followed by those of the target, `logits` (B, T + P, K, h, w)."""
    num_clips, predictions = labels.shape[1], logits.shape[1] - labels.shape[1]
    frames, accuracy = cross_entropy(logits[:, :num_clips].flatten(0, 1), labels.flatten(0, 2))
    target_labels = labels[:, -1].repeat(1, predictions, 1, 1)  # (B, P, H, W)
    target, _ = cross_entropy(logits[:, num_clips:].flatten(0, 1), target_labels.flatten(0, 1))
    return {"decode.loss_seg": 0.5 * frames + target, "decode.acc_seg": accuracy}


def forward(head: nn.Module, feats: Sequence[Tensor], batch_size: int, num_clips: int) -> Tensor:
    """In training A and P, (B, T + 1, K, h, w); in eval mode P of whole clips, else A of the last frame."""
    fused = fused_feature(head, feats)  # (B * T, C, h4, w4)
    frames = frame_logits(head, fused).unflatten(0, (batch_size, num_clips))  # (B, T, K, h4, w4)
    if not head.training and num_clips != head.num_clips:
        return frames[:, -1]
    target = target_logits(head, fused.unflatten(0, (batch_size, num_clips)))
    return torch.cat([frames, target[:, None]], dim=1) if head.training else target


def target_logits(head: nn.Module, fused: Tensor) -> Tensor:
    """P (B, K, h4, w4) from F (B, T, C, h4, w4)."""
    half = half_size(fused)  # G (B, T, C, h, w)
    mined = focal_decoder(head.decoder_focal, half)
    both = torch.cat([half[:, -1], mined[:, -1]], dim=1)  # (B, 2C, h, w)
    logits = conv(F.dropout2d(both, head.dropout.p, head.dropout.training), head.linear_pred2)
    return resize(logits, fused.shape[-2:])


def half_size(fused: Tensor) -> Tensor:
    """G (B, T, C, h4 // 2, w4 // 2) from F (B, T, C, h4, w4)."""
    size = (fused.shape[-2] // 2, fused.shape[-1] // 2)
    return resize(fused.flatten(0, 1), size).unflatten(0, fused.shape[:2])


# ---------------------------------------------------------------------- the focal decoder


def focal_decoder(decoder: nn.Module, x: Tensor) -> Tensor:
    """(B, T, C, h, w) -> the same with the last frame updated by every block."""
    x = x.permute(0, 1, 3, 4, 2)
    for block in decoder.blocks:
        x = focal_block(block, x)
    return x.permute(0, 1, 4, 2, 3)


def focal_block(block: nn.Module, x: Tensor) -> Tensor:
    """(B, T, h, w, C) -> the same with the last frame updated."""
    batch, _, h, w, _ = x.shape
    windows = focal_attention(block.attn, *padded_target_and_pooled_maps(block, x))  # (B * W', 49, C)
    rows, columns = -(-h // WINDOW), -(-w // WINDOW)
    update = merge_windows(windows, batch, rows, columns)[:, :h, :w]
    target = x[:, -1] + update
    target = target + mlp(block.mlp, layer_norm(target, block.norm2))
    return torch.cat([x[:, :-1], target[:, None]], dim=1)


def mlp(layers: nn.Module, x: Tensor) -> Tensor:
    """Linear, GELU, linear on the last axis."""
    return linear(F.gelu(linear(x, layers.fc1)), layers.fc2)


def padded_target_and_pooled_maps(block: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The normalised target (B, H, W, C), and the pooled maps of the target and of references 0, 1, 2.

    Pooled maps are (B, l * nh, l * nw, C) with l = 1 for the target and 1, 2, 3 for the references.
    """
    h, w = x.shape[2:4]
    y = F.pad(layer_norm(x, block.norm1), (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))  # (B, T, H, W, C)
    target = y[:, -1]
    rows, columns = target.shape[1] // WINDOW, target.shape[2] // WINDOW
    pooled = [pool(target, WINDOW, block.pool_layers[0])]
    for r, cells in enumerate(CELLS):
        side = WINDOW // cells  # of a cell: 7, 3, 2
        size = (cells * side * rows, cells * side * columns)
        reference = y[:, r]
        if tuple(reference.shape[1:3]) != size:
            reference = resize(reference.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
        pooled.append(pool(reference, side, block.pool_layers_clips[r]))
    return target, pooled


def pool(x: Tensor, side: int, layer: nn.Module) -> Tensor:
    """A weighted sum over every side x side cell: (B, H, W, C) -> (B, H / side, W / side, C)."""
    cells = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, side, columns, side, C)
    return linear(cells.permute(0, 1, 3, 5, 2, 4).flatten(-2), layer).squeeze(-1)


def focal_attention(attn: nn.Module, target: Tensor, pooled: Sequence[Tensor]) -> Tensor:
    """Attention of every window (49 queries) to 289 keys: (B * W', 49, C).

    Keys are the window (49), the ring around it (132), the pooled target (25) and the pooled references (49, 25, 9).
    """
    qkv = linear(target, attn.qkv)  # (B, H, W, 3C)
    parts = [windows_of(qkv), ring_of(qkv)]
    masks = [parts[0].new_zeros(len(parts[0]), parts[0].shape[1] + parts[1].shape[1])]
    for maps, cells, size in zip(pooled, (1, *CELLS), (OWN_NEIGHBORHOOD, *NEIGHBORHOODS)):
        parts.append(neighborhoods_of(linear(maps, attn.qkv), size, cells))
        inside = neighborhoods_of(torch.ones_like(maps[..., :1]), size, cells)[..., 0]
        masks.append((1 - inside) * OUTSIDE)  # (B * W', size * size)
    query, key, value = (split_heads(part, HEADS) for part in torch.cat(parts, dim=1).chunk(3, dim=-1))
    query = query[:, :, : WINDOW**2] * query.shape[-1] ** -0.5  # (B * W', heads, 49, d)
    logits = query @ key.transpose(-2, -1) + position_bias(attn) + torch.cat(masks, dim=1)[:, None, None]
    out = logits.softmax(dim=-1) @ value
    return linear(out.transpose(1, 2).flatten(2), attn.proj)


def windows_of(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B * W', 49, C)."""
    x = x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))  # (B, nh, 7, nw, 7, C)
    return x.transpose(2, 3).reshape(-1, WINDOW**2, x.shape[-1])


def merge_windows(windows: Tensor, batch: int, rows: int, columns: int) -> Tensor:
    """(B * W', 49, C) -> (B, H, W, C)."""
    x = windows.view(batch, rows, columns, WINDOW, WINDOW, -1)
    return x.transpose(2, 3).reshape(batch, rows * WINDOW, columns * WINDOW, -1)


def ring_of(x: Tensor) -> Tensor:
    """What four copies of a window, shifted by 3 tokens on the torus of the map, hold outside it: (B * W', 132, C)."""
    copies = [windows_of(torch.roll(x, (-oy, -ox), dims=(1, 2))) for oy, ox in RING_COPIES]
    y, x = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
    kept = [((y >= 4) if oy > 0 else (y < 3)) | ((x >= 4) if ox > 0 else (x < 3)) for oy, ox in RING_COPIES]
    kept = [mask.flatten().nonzero()[:, 0] for mask in kept]
    return torch.cat([copy[:, numbers.to(copy.device)] for copy, numbers in zip(copies, kept)], dim=1)


def neighborhoods_of(x: Tensor, size: int, cells: int) -> Tensor:
    """`size` x `size` cells around the first cell of every window, zero outside the map.

    (B, l * nh, l * nw, C) with l = `cells` -> (B * W', size * size, C).
    """
    channels = x.shape[-1]
    x = F.unfold(x.permute(0, 3, 1, 2), size, padding=size // 2, stride=cells)  # (B, C * size * size, W')
    return x.unflatten(1, (channels, -1)).permute(0, 3, 2, 1).flatten(0, 1)


def position_bias(attn: nn.Module) -> Tensor:
    """The bias of all keys: (heads, 49, 289)."""
    window = attn.relative_position_bias_table[relative_index(WINDOW)].permute(2, 0, 1)  # (heads, 49, 49)
    ring = attn.relative_position_bias_table_to_neighbors[0]  # (heads, 49, 132)
    tables = [*attn.relative_position_bias_table_to_windows, *attn.relative_position_bias_table_to_windows_clips]
    pooled = [table[:, relative_index(n)] for table, n in zip(tables, (OWN_NEIGHBORHOOD, *NEIGHBORHOODS))]
    return torch.cat([window, ring, *pooled], dim=-1)


def relative_index(size: int) -> Tensor:
    """Row of the table for every query (yq, xq) of a window and cell (u, v) of a neighbourhood: (49, size * size).

    It is (yq - u + size - 1) * (size + 6) + (xq - v + size - 1).
    """
    query, cell = torch.arange(WINDOW), torch.arange(size)
    offset = query[:, None] - cell[None] + size - 1  # (7, size)
    index = offset[:, None, :, None] * (size + WINDOW - 1) + offset[None, :, None, :]  # (7, 7, size, size)
    return index.reshape(WINDOW**2, size**2)
