"""Tensors that depend on sizes alone, such as position codes: made once, kept for the sizes used last."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch._guards import detect_fake_mode

Tables = TypeVar("Tables")

_KEPT = 64  # results of one function


def table(make: Callable[..., Tables]) -> Callable[..., Tables]:
    """`make`, a function of sizes, device and the like, with a memory; its tensors fit into graphs, whoever asks first.

    A compiled region makes its tables anew, as part of what is compiled. An export takes those that are there, as
    constants: it is for one size, and what it traces has run before.
    """
    kept: dict[tuple, Tables] = {}

    @functools.wraps(make)
    def look_up(*args) -> Tables:
        free = any(isinstance(arg, torch.SymInt) for arg in args)  # a size that the export leaves open
        if torch.compiler.is_compiling() and (free or not torch.compiler.is_exporting() or args not in kept):
            return make(*args)
        try:
            found = kept.pop(args)  # to the end, behind what was used before it
        except KeyError:
            with torch.inference_mode(False), torch.no_grad():
                found = make(*args)
            if detect_fake_mode() is not None:
                return found  # without content: nobody else could use it
        kept[args] = found
        for oldest in list(kept)[:-_KEPT]:  # streams in other threads may come by at any point
            kept.pop(oldest, None)
        return found

    look_up.cache_clear = kept.clear
    return look_up
