"""Reads files of weights without running anything that they contain.

Files are read with ``torch.load(weights_only=True)`` and an allow-list of the harmless numpy types that
official files carry in their ``meta``; a file that asks for more is refused. Only the file level lives
here: what a file means for a backbone is told by :mod:`mmseg.models.backbones.mit_weights`, what a
training checkpoint is by :mod:`mmseg.engine.checkpoints`.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmseg.errors import CheckpointError

# numpy 2 renamed numpy.core; numpy 1.26 knows the new name only in part
_CORE = "_core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "core"
_multiarray = importlib.import_module(f"numpy.{_CORE}.multiarray")


def _under_name(function: Any, module: str) -> Any:
    """`function` as pickles of another numpy version call it: numpy 2 renamed ``numpy.core``."""

    def renamed(*args: Any) -> Any:
        return function(*args)

    renamed.__module__, renamed.__name__, renamed.__qualname__ = module, function.__name__, function.__name__
    return renamed


_ALLOWED = [
    codecs.encode,  # bytes inside numpy scalars; torch allows it from 2.5 on
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d")},
    *(
        _under_name(getattr(_multiarray, name), f"numpy.{core}.multiarray")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ),
]


def _allow_numpy() -> contextlib.AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` accepts numpy numbers and arrays."""
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(_ALLOWED)
    torch.serialization.add_safe_globals(_ALLOWED)  # torch 2.4 has no context for it
    return contextlib.nullcontext()


def read_weights_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """The object stored in a ``.pth`` / ``.bin`` file (any torch format) or a ``.safetensors`` file.

    Raises:
        CheckpointError: the file is missing, truncated, not a file of weights, or carries code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", "a file of weights", "check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path), device=str(map_location or "cpu"))
        with _allow_numpy():
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "weights_only" in str(error).lower():
            raise CheckpointError(
                f"{path}: refused to read it, it asks for more than weights ({_wanted(str(error))})",
                "tensors, numbers, text and containers of them",
                "do not open it with other tools unless you trust its origin; ask for a file with the state_dict only",
            ) from error
        raise _damaged(path, reason) from error
    except Exception as error:  # torch reports damage by many types: RuntimeError, EOFError, OSError, KeyError ...
        raise _damaged(path, f"{type(error).__name__}: {error}".split("\n")[0]) from error


def _wanted(text: str) -> str:
    """The sentence of torch's message that names the forbidden global or instruction."""
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()[:200]
    return text.splitlines()[0][:200]


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read, it is truncated or not a file of weights ({reason})",
        "a complete file written by torch.save",
        "download or copy it again, or use an earlier checkpoint",
    )


def strip_prefix(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """`state` with `prefix` taken off the names that start with it."""
    return {name[len(prefix) :] if name.startswith(prefix) else name: value for name, value in state.items()}


def differences(model: nn.Module, state: Mapping[str, Any], limit: int = 5) -> str:
    """In words, how `state` differs from what `model` holds: the first names of each kind; "" if it fits."""
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in own
        if name in state and isinstance(state[name], Tensor) and state[name].shape != own[name].shape
    ]
    kinds = (("missing in the file", missing), ("not in the model", unexpected), ("of another shape", shapes))
    return "; ".join(f"{kind}: {_first(names, limit)}" for kind, names in kinds if names)


def _first(names: list[str], limit: int) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
