"""Losses of masks at points: bilinear samples of maps, and the points where a mask is uncertain.

Points are (x, y) in [0, 1] x [0, 1] of the whole map; beyond its border everything is 0 (PointRend, arXiv:1912.08193,
section 3.2; Mask2Former, arXiv:2112.01527, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[tuple[int, ...]], Tensor]
"""Uniform random numbers from [0, 1) of a shape: where points come from."""


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples.

    Args:
        maps: (N, C, h, w).
        points: (N, P, 2), shared by the channels.

    Returns:
        (N, C, P).
    """
    if not maps.shape[1]:
        return maps.new_zeros(len(maps), 0, points.shape[1])
    grid = 2 * points.to(maps.dtype)[:, :, None] - 1  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


@torch.no_grad()
def uncertain_points(
    maps: Tensor, num_points: int, oversample_ratio: float, importance_sample_ratio: float, draw: Draw
) -> Tensor:
    """Points of each map, most of them where its mask is least certain.

    Args:
        maps: (N, h, w) mask logits.
        num_points: P.
        oversample_ratio: how many times P candidates there are.
        importance_sample_ratio: share of P that is taken from them, by the smallest absolute logit; the others are
            new uniform points.
        draw: is called with the shapes of candidates and of other points.

    Returns:
        (N, P, 2).
    """
    num_uncertain = int(importance_sample_ratio * num_points)
    candidates = draw((len(maps), int(num_points * oversample_ratio), 2))
    logits = sample_maps(maps[:, None], candidates)[:, 0]
    chosen = logits.abs().topk(num_uncertain, largest=False, sorted=False).indices  # (N, num_uncertain)
    uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, draw((len(maps), num_points - num_uncertain, 2))], dim=1)
