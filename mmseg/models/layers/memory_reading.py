"""Reading a memory of keys and values by similarity: all of it in training, the most similar positions in inference.

Cheng et al., Rethinking Space-Time Networks with Improved Memory Coverage for Efficient Video Object Segmentation
(STCN), NeurIPS 2021: the similarity is the negative squared L2 distance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.linear import linear

_AT_ONCE = 2**22  # similarities that are held at a time
_QUERIES = 128  # of a graph: what they read is 13 MB for one object of 512 channels and the 50 best positions


def read_all(keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
    """Means of the values, weighted by the softmax of the similarities over all memory positions.

    Args:
        keys: (B, C, N) of the memory.
        values: (B, k, D, N) of k objects.
        queries: (B, C, P).

    Returns:
        (B, k, D, P).
    """
    similarity = (2 * keys.mT @ queries - keys.square().sum(1)[:, :, None]) / math.sqrt(keys.shape[1])  # (B, N, P)
    return values @ similarity.softmax(dim=1)[:, None].to(values.dtype)


def read_best(keys: Tensor, values: Tensor, queries: Tensor, top_k: int, key_norms: Tensor | None = None) -> Tensor:
    """Means of the values of the `top_k` most similar memory positions, weighted by a softmax over those.

    Args:
        keys: (N, C) of the memory.
        values: (N, D).
        queries: (P, C).
        top_k: as many positions, or all if there are fewer.
        key_norms: (N,) ``keys.square().sum(1)``, where it is at hand.

    Returns:
        (P, D).
    """
    norms = keys.square().sum(1) if key_norms is None else key_norms
    parts = []
    for some in queries.split(max(_AT_ONCE // len(keys), 1)):
        weights, positions = _best_positions(keys, norms, some, min(top_k, len(keys)))
        parts.append(F.embedding_bag(positions, values, per_sample_weights=weights.to(values.dtype), mode="sum"))
    return torch.cat(parts)


def read_best_of_any(keys: Tensor, values: Tensor, queries: Tensor, top_k: int) -> Tensor:
    """:func:`read_best` for graphs that are made once for memories of any number of frames, without a choice.

    Args:
        keys: (T, P, C) of frames.
        values: (T, P, D).
        queries: (P', C).
        top_k: as for :func:`read_best`; what a single frame lacks to it is filled up with positions of no weight.
    """
    lacking = max(top_k - keys.shape[1], 0)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    values = F.pad(values, (0, 0, 0, lacking)) if lacking else values
    norms, parts = keys.square().sum(1), []
    for some in queries.split(_QUERIES):
        weights, positions = _best_positions(keys, norms, some, top_k, lacking)
        parts.append((weights[:, None] @ values[positions])[:, 0])  # (p, 1, k) times (p, k, D)
    return torch.cat(parts)


def _best_positions(
    keys: Tensor, norms: Tensor, queries: Tensor, top_k: int, lacking: int = 0
) -> tuple[Tensor, Tensor]:
    """Weights and numbers (p, k) of the memory positions that queries (p, C) read; `lacking` more have no weight."""
    scale = 1 / math.sqrt(keys.shape[1])
    similarity = linear(queries * (2 * scale), keys, norms * -scale)  # (p, N)
    if lacking:
        similarity = F.pad(similarity, (0, lacking), value=-math.inf)
    best, positions = similarity.topk(top_k, dim=1, sorted=False)
    return best.softmax(dim=1), positions
