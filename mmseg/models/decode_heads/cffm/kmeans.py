"""k-means as the prototypes of CFFM++ are made (paper: "global temporal contexts"; full batch, Euclidean)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmseg.errors import DataError
from mmseg.models.layers import full_precision


@torch.no_grad()
def kmeans(
    x: Tensor,
    n_clusters: int,
    init: Tensor | None = None,
    max_iter: int = 10,
    tol: float = 1e-4,
    seed: int = 0,
    chunk_rows: int = 8192,
) -> tuple[Tensor, Tensor]:
    """Cluster the rows of `x`.

    A cluster without members becomes the zero vector, and stays in the game as such. The fit ends when the centroids
    moved by no more than `tol` (sum of squares over all of them), or after `max_iter` iterations.

    Args:
        x: (n, C) floating point; narrower types than float32 are widened.
        n_clusters: number of centroids.
        init: initial centroids (n_clusters, C), or int64 indices (n_clusters,) of the rows they are taken from; None
            draws rows of different values at random.
        seed: of that draw, the same on all devices.
        chunk_rows: how many rows' distances exist at the same time.

    Returns:
        Labels (n,) int64, the assignment to the centroids before the last update, and the centroids (n_clusters, C).

    Raises:
        DataError: fewer rows than clusters, or values that are not finite.
    """
    if len(x) < n_clusters or not torch.isfinite(x).all():
        found = f"{len(x)} rows" if len(x) < n_clusters else "values that are not finite"
        raise DataError(
            f"k-means with {n_clusters} clusters of {found}",
            f"at least {n_clusters} rows of finite numbers",
            "use larger frames or fewer clusters (n_clusters), and a checkpoint that predicts well",
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    with full_precision(x):
        if init is None:
            init = _distinct_rows(x, n_clusters, seed)
        centroids = (init if init.is_floating_point() else x[init]).to(x).clone()
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for _ in range(max_iter):
            labels, updated = _iterate(x, centroids, chunk_rows)
            error = (updated - centroids).square().sum()
            centroids = updated
            if error <= tol:
                break
    return labels, centroids


def _iterate(x: Tensor, centroids: Tensor, chunk_rows: int) -> tuple[Tensor, Tensor]:
    """Assignment of all rows to `centroids`, and the means of the clusters that come of it."""
    sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
    squares = centroids.square().sum(1)
    labels = []
    for rows in x.split(chunk_rows):
        similarity = 2 * (rows @ centroids.t()) - rows.square().sum(1, keepdim=True) - squares  # (rows, n_clusters)
        labels.append(_first_argmax(similarity))
        members = torch.nn.functional.one_hot(labels[-1], len(centroids)).to(x.dtype)
        sums += members.t() @ rows
        counts += members.sum(0)
    return torch.cat(labels), sums / counts.clamp(min=1)[:, None]


def _first_argmax(similarity: Tensor) -> Tensor:
    """Index of the largest value of each row, the lowest one on a tie: (n, k) -> (n,)."""
    columns = torch.arange(similarity.shape[1], device=similarity.device)
    largest = similarity == similarity.max(1, keepdim=True).values
    return torch.where(largest, columns, similarity.shape[1]).min(1).values


def _distinct_rows(x: Tensor, count: int, seed: int) -> Tensor:
    """Indices of `count` random rows, of different values as far as there are: a repeated row is an empty cluster."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    candidates = order[: 8 * count]
    _, value = torch.unique(x[candidates.to(x.device)], dim=0, return_inverse=True)
    first = torch.full((int(value.max()) + 1,), len(candidates)).scatter_reduce_(
        0, value.cpu(), torch.arange(len(candidates)), "amin"
    )
    distinct = torch.zeros(len(x), dtype=torch.bool)
    distinct[first] = True
    return torch.cat([order[distinct], order[~distinct]])[:count].to(x.device)
