"""Memory that stays with the process: what is freed is used again as it is, instead of being asked for page by page.

For every large tensor glibc asks the system for new memory, whose pages it gets one at a time, filled with zeros, when
they are first written; that takes longer than most of what is computed in them (0.7 ms a MB on virtual machines).
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_KEPT = 2**31 - 1  # bytes
_THRESHOLDS = ("trim_threshold", "mmap_threshold", "mmap_max")  # as ``MALLOC_MMAP_MAX_``, ``glibc.malloc.mmap_max``


@lru_cache(maxsize=1)
def keep_pages() -> bool:
    """Have large tensors of this process come from its heap, and the heap keep up to 2 GiB that are free.

    Thresholds that are set by environment variables of glibc stay, and nothing changes.

    Returns:
        Whether that is so now; it is not where thresholds are set, or the C library does not know how.
    """
    if _set_by_user():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}" in tunables for name in _THRESHOLDS)


def keep_pages_on_cpu(device: torch.device) -> None:
    """:func:`keep_pages` if `device` is the CPU."""
    if device.type == "cpu":
        keep_pages()
