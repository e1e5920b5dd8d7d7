"""Plain modules shared by several models, and the precision that some of their work needs."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """Suspends autocast on the device of `x`: for folded weights, losses, statistics and hard decisions.

    They are computed in the type of the weights, whatever surrounds them.
    """
    return torch.autocast(x.device.type, enabled=False)
