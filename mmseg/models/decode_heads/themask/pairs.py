"""Matched pairs of queries and targets as tensors, and what is read by them: masks, and samples of targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmseg.models.losses.point_sampling import sample_maps


@dataclass
class Pairs:
    """Matched pairs of one round and one level, by clip (and frame), then ascending query.

    Attributes:
        items: (N,) number of the clip, or of the frame ``b * T + t``.
        clips: (N,) number of the clip.
        frames: (N, T or 1) numbers ``b * T + t`` of the frames of the item.
        queries: (L, N).
        targets: (L, N) position among the classes of the clip.
    """

    items: Tensor
    clips: Tensor
    frames: Tensor
    queries: Tensor
    targets: Tensor


def pairs_of(layers: Sequence[Sequence[tuple]], num_frames: int, of_frames: bool, device: torch.device) -> Pairs:
    """The assignments of all layers and clips of T frames; those of frames are repeated for every frame of a clip."""
    copies = num_frames if of_frames else 1
    counts = [len(queries) for queries, _ in layers[0] for _ in range(copies)]  # of every item
    rows = [np.repeat(np.arange(len(counts)), counts)]
    for side in (0, 1):
        for of_layer in layers:
            rows.append(np.concatenate([pair[side] for pair in of_layer for _ in range(copies)]))
    table = torch.from_numpy(np.stack(rows).astype(np.int64)).to(device, non_blocking=True)  # (1 + 2 L, N)
    items, (queries, positions) = table[0], table[1:].chunk(2)
    if of_frames:
        return Pairs(items, items // num_frames, items[:, None], queries, positions)
    frames = items[:, None] * num_frames + torch.arange(num_frames, device=device)
    return Pairs(items, items, frames, queries, positions)


def matched_masks(masks: Sequence[Tensor], pairs: Pairs) -> Tensor:
    """The masks (items, Q, frames, h, w) of matched queries, of all layers: (L, N, frames, h, w)."""
    return torch.stack([of_layer[pairs.items, queries] for of_layer, queries in zip(masks, pairs.queries)])


def sample_targets(masks: Tensor, pairs: Pairs, points: Tensor) -> Tensor:
    """Samples (L * N * frames, P) of the targets of the pairs of a first round, in which every target has its query.

    Each target is sampled once, at the points of all layers.

    Args:
        masks: (B, T, n, H, W).
        points: (L, N * frames, P, 2).
    """
    num_layers, (num_pairs, num_frames) = len(points), pairs.frames.shape
    layer = torch.arange(num_layers, device=points.device)[:, None]
    # by clip (and frame), then target: the order of the pairs of a layer, if their queries were in that of the targets
    place = pairs.items * masks.shape[2] + pairs.targets  # (L, N)
    order = place.argsort(dim=1)
    by_target = points.unflatten(1, (num_pairs, num_frames))[layer, order]  # (L, N, frames, P, 2)
    grid = by_target.permute(1, 2, 0, 3, 4).reshape(num_pairs * num_frames, -1, 2)  # (N * frames, L * P, 2)
    maps = masks.flatten(0, 1)[pairs.frames, pairs.targets[0].gather(0, order[0])[:, None]]  # (N, frames, H, W)
    samples = sample_maps(maps.flatten(0, 1)[:, None], grid)[:, 0]
    samples = samples.view(num_pairs, num_frames, num_layers, -1).permute(2, 0, 1, 3)  # (L, N, frames, P)
    return samples[layer, order.argsort(dim=1)].flatten(0, 2)
