"""Which query answers for which target: costs of all pairs, and the assignment that costs least.

A query whose mask fits a second best is found by a second assignment among those that the first has left over
(THE-Mask, arXiv:2309.08020, section 3.3).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

_FORBIDDEN = 1000.0  # times the highest cost: that of a query which is taken already


def class_costs(logits: Tensor, classes: Tensor) -> Tensor:
    """Minus the probability of a target's class.

    Args:
        logits: (B, Q, K + 1).
        classes: (B, n).

    Returns:
        (B, Q, n).
    """
    index = classes[:, None].expand(-1, logits.shape[1], -1)
    return -logits.softmax(-1).gather(2, index)


def mask_costs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy and dice cost of every mask with every target, at the sampled points of T frames.

    Args:
        logits: (B, T, Q, P) of the masks.
        targets: (B, T, n, P) in [0, 1].

    Returns:
        Two of (B, Q, n).
    """
    absent, probability = F.softplus(logits), logits.sigmoid()
    present = absent - logits  # softplus(-logits)
    targets = targets.transpose(2, 3)  # (B, T, P, n)
    num_points = logits.shape[1] * logits.shape[3]
    cross_entropy = (present @ targets + absent @ (1 - targets)).sum(1) / num_points
    both = (probability @ targets).sum(1)
    separate = probability.sum((1, 3))[:, :, None] + targets.sum((1, 2))[:, None]
    return cross_entropy, 1 - (2 * both + 1) / (separate + 1)


def assign(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of a query to every target that costs least.

    Args:
        costs: (Q, n), Q >= n; what is not finite counts as very expensive, so that a loss can tell of it.

    Returns:
        Queries (n,) in ascending order, and the target (n,) of each.
    """
    from scipy.optimize import linear_sum_assignment  # only now: its import takes a while, and only training needs it

    queries, targets = linear_sum_assignment(np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=1e6))
    return queries, targets


def without(costs: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """`costs` (Q, n) of a second assignment, in which the queries `taken` are too expensive to be chosen again."""
    costs = costs.copy()
    if costs.size:
        costs[taken] = _FORBIDDEN * abs(costs.max())
    return costs
