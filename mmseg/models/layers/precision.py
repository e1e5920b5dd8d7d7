"""What is computed in the precision of the weights, whatever autocast surrounds it."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """Suspends autocast on the device of `x`: for folded weights, losses, statistics and hard decisions."""
    return torch.autocast(x.device.type, enabled=False)
