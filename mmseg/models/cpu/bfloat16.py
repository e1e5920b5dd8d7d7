"""Whether a processor computes in bfloat16, and what PyTorch's operators for it do slowly."""

from __future__ import annotations

import logging
import platform
from functools import lru_cache

import torch
from torch import Tensor

logger = logging.getLogger("mmseg.models")


@lru_cache(maxsize=1)
def has_bfloat16() -> bool:
    """Whether this processor multiplies numbers of bfloat16 by instructions of its own, through PyTorch's oneDNN.

    Others emulate them; what is written for speed in bfloat16 would be slow there.
    """
    try:
        known = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # a PyTorch without oneDNN
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return known
    # with AVX-512 alone oneDNN turns them into float32 and back
    return known and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()


def mixed_type(wanted: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """The type in which `device` computes where mixed precision in `wanted` is asked for; None is float32.

    A CPU takes bfloat16 for float16. That is a warning, once per process, and so is a CPU without instructions for it.
    """
    if device.type != "cpu":
        return wanted
    if wanted is torch.float16:
        _warn("amp: float16 needs a GPU, using bfloat16 on the CPU")
        wanted = torch.bfloat16
    if wanted is torch.bfloat16 and not has_bfloat16():
        _warn(
            "bfloat16 on a processor without instructions for it (avx512_bf16 on x86, bf16 on ARM): expect it to take "
            "longer than float32"
        )
    return wanted


@lru_cache
def _warn(message: str) -> None:
    logger.warning(message)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift``, with broadcasting.

    On a CPU the operator that does it at once takes numbers of bfloat16 one by one.
    """
    if x.device.type == "cpu" and x.dtype == torch.bfloat16:
        return (x * scale).add_(shift)
    return torch.addcmul(shift, x, scale)
