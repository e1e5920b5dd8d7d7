"""Losses of masks at points: bilinear samples of maps and of label maps, and the points where a mask is uncertain.

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
    grid = 2 * points.to(maps.dtype)[:, :, None] - 1  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


def sample_labels(labels: Tensor, frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`sample_maps` would look at, for the masks of all labels at once.

    The sample of the mask of one label is the weight of those of the four pixels that have it (:func:`share_of`), so
    that no mask has to exist.

    Args:
        labels: (F, H, W) label maps.
        frames: (R,) number of the label map of each row of points.
        points: (R, P, 2).

    Returns:
        Labels of the four pixels around each point, and their weights, (4, R, P) each.
    """
    height, width = labels.shape[-2:]
    grid = 2 * points - 1  # as grid_sample has it, so that both round alike
    x, y = ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2  # (R, P) in pixels
    left, top = x.floor(), y.floor()
    start = (frames * (height * width))[:, None]
    corners, weights = [], []
    for row, of_row in ((top, top + 1 - y), (top + 1, y - top)):
        for column, of_column in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long() + start
            corners.append(labels.take(index))
            weights.append(of_row * of_column * inside)
    return torch.stack(corners), torch.stack(weights)


def share_of(classes: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Samples of the masks [label = class], in [0, 1].

    Args:
        classes: of any shape that fits (R, P).
        corners, weights: (4, R, P), see :func:`sample_labels`.
    """
    return sum(weight * (corner == classes) for corner, weight in zip(corners, weights))


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
