"""What compiled code leaves out, said without importing the compiler."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


def outside_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which ``torch.compile`` calls where it stands and does not look into.

    :func:`torch.compiler.disable` does the same, and imports the compiler: as long as the import of PyTorch itself, in
    every program, although few of them compile anything. Here it is called once the compiler is there.
    """
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return call
