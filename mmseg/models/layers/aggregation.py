"""Soft aggregation: from independent probabilities of objects to a distribution over background and objects.

Oh et al., Video Object Segmentation using Space-Time Memory Networks, ICCV 2019, section 3.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 1e-7  # from 0 and 1


def aggregate(probabilities: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and probabilities of background and objects.

    Args:
        probabilities: (..., k, ...) of k objects, each by itself, along `dim`.
        dim: their axis.

    Returns:
        Both (..., k + 1, ...), background first, at least in float32: the logits, and their softmax.
    """
    p = probabilities if probabilities.dtype is torch.float64 else probabilities.float()
    background = (1 - p).prod(dim, keepdim=True)
    p = torch.cat([background, p], dim).clamp(MARGIN, 1 - MARGIN)
    logits = torch.log(p / (1 - p))
    return logits, logits.softmax(dim)
