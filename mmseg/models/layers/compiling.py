"""What compiled code leaves out, said without importing the compiler; what exports do; whether there is a compiler."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from mmseg.errors import ConfigError


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


def is_exporting() -> bool:
    """Whether a graph for other engines is being made; PyTorch before 2.7 does not tell, and False stands for that."""
    return getattr(torch.compiler, "is_exporting", bool)()


def require_compiler(device: torch.device | str) -> None:
    """Find out whether ``torch.compile`` can do anything here, before a long run does.

    Raises:
        ConfigError: it cannot, because there is no C++ compiler that works, or Triton is missing for a GPU.
    """
    try:
        torch.compile(_probe)(torch.zeros(64, device=device))
    except Exception as error:  # of many kinds, by what is missing
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ConfigError(
            f"compiling fails here: {lines[0]}",
            "a C++ compiler (g++, or what the variable CXX names) and Python's headers; for GPUs Triton, too",
            "install them, or leave --compile (in a config: compile=True) out",
        ) from error


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
