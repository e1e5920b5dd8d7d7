"""Files of weights: read without running or trusting anything that they contain, matched by name, loaded.

Files are read with ``torch.load(weights_only=True)``; arrays and numbers of NumPy, which official files carry in their
``meta``, are made by :mod:`mmseg.plain_pickle`. A file that asks for more is refused. What a file means for a backbone
is told by :mod:`mmseg.models.backbones.mit_weights`; :mod:`mmseg.engine.checkpoints` writes those of a training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import stat
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmseg.errors import CheckpointError, WriteError
from mmseg.files import NewFile
from mmseg.model_folder import locate
from mmseg.plain_pickle import TORCH_GLOBALS, check_archive, resolve

logger = logging.getLogger("mmseg.weights")

PURPOSES = ("train", "finetune", "test", "resume")
_LISTED = 10
_STATES = ("state_dict", "model", "network")  # where files have their weights; the last is that of GSFM's script


# --- files ------------------------------------------------------------------------------------------------------------


def read_weights_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """The object stored in a ``.pth`` / ``.bin`` file (any torch format) or a ``.safetensors`` file.

    Raises:
        CheckpointError: the file is missing, truncated, not a file of weights, or carries code.
    """
    path = Path(path)
    _require_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path), device=str(map_location or "cpu"))
        if zipfile.is_zipfile(path):
            check_archive(path)
        with _plain_arrays_allowed():
            return resolve(torch.load(path, map_location=map_location, weights_only=True))
    except pickle.UnpicklingError as error:
        wanted = _wanted(str(error))
        if wanted is None:
            raise _damaged(path, str(error).split("\n")[0]) from error
        raise CheckpointError(
            f"{path}: refused to read it, it asks for more than weights ({wanted})",
            "tensors, numbers, text and containers of them",
            "do not open it with other tools unless you trust its origin; ask for a file with the state_dict only",
        ) from error
    except PermissionError as error:
        raise CheckpointError(f"{path}: no permission to read it", "a readable file", "change its mode") from error
    except Exception as error:  # torch reports damage by many types: RuntimeError, EOFError, OSError, KeyError ...
        raise _damaged(path, f"{type(error).__name__}: {error}".split("\n")[0][:200]) from error


def write_weights_file(path: str | Path, content: Any, advice: str = "") -> None:
    """Write `content` with ``torch.save``, the whole file or nothing.

    Raises:
        WriteError: it cannot be written (full disk, no permission); an old file at `path` is intact.
    """
    with NewFile(path, advice) as file:
        torch.save(content, _Sink(file))


class _Sink:
    """What torch.save writes to. It never raises: torch calls it from C++, also while cleaning up after an error."""

    def __init__(self, file: NewFile) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        with contextlib.suppress(WriteError):  # the file keeps it and raises it at the end
            self.file.write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is flushed once, when all is written."""


def _require_file(path: Path) -> None:
    """Raise CheckpointError unless `path` is a regular file: a pipe or a device would be waited for, or never end."""
    if "\0" in str(path):
        raise CheckpointError(f"{str(path)!r}: no file name", "a path without the character NUL", "check the path")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:  # no permission for a folder of the path, a name that is too long
        found = f"{path}: cannot be read ({error.strerror})"
        raise CheckpointError(found, "a file of weights", "check the path and its permissions") from error
    if mode is not None and not stat.S_ISREG(mode):
        other = ("is a pipe or a device", "copy the weights to a file first")
        what, advice = ("is a folder", "name a file in it, for example latest.pth") if stat.S_ISDIR(mode) else other
        raise CheckpointError(f"{path}: {what}", "a file of weights", advice)
    if mode is not None:
        return
    action = "download it, and give its path" if ":/" in str(path) else "check the path"
    target = f" (a link to {path.readlink()}, which does not exist)" if path.is_symlink() else ""
    raise CheckpointError(f"{path}: no such file{target}", "a file of weights", action)


def _plain_arrays_allowed() -> contextlib.AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` accepts stand-ins for numpy numbers and arrays."""
    if hasattr(torch.serialization, "safe_globals"):
        return torch.serialization.safe_globals(TORCH_GLOBALS)
    torch.serialization.add_safe_globals(TORCH_GLOBALS)  # torch 2.4 has no context for it
    return contextlib.nullcontext()


def _wanted(text: str) -> str | None:
    """The sentence of torch's message, or ours, that names what is forbidden; None for mere damage."""
    for line in text.splitlines():
        for word in ("GLOBAL", "asks for", "holds a function", "Can only", "unrecognized function"):
            if word in line and "operand" not in line:
                return line.strip()[:200]
    return None


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read, it is truncated or not a file of weights ({reason})",
        "a complete file written by torch.save, or of safetensors",
        "download or copy it again, or use an earlier checkpoint",
    )


# --- what the files mean ----------------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path, map_location: Any = "cpu", as_written: bool = False) -> dict[str, Any]:
    """A checkpoint as a dict with at least ``state_dict`` and ``meta``, names as a plain model has them.

    Files that hold nothing but named tensors, or have them under ``model`` or ``network``, are accepted as well; and so
    are shared folders and repositories of the Hub (:mod:`mmseg.model_folder`). `as_written` keeps the names.

    Raises:
        CheckpointError: the file is missing, truncated, no checkpoint, or asks for more than tensors and plain values.
    """
    file, facts = locate(path)
    content = read_weights_file(file, map_location)
    if facts is not None:
        content = {"meta": facts, "state_dict": content}
    state = content
    if isinstance(content, Mapping):
        state = next((content[k] for k in _STATES if isinstance(content.get(k), Mapping)), content)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = [key for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []
        found = f"keys {keys[:5]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path}: no weights in it ({found})", "a dict with 'state_dict'", "check that it is the right file"
        )
    if not all(isinstance(name, str) for name in state):
        raise _unusable(path, "state_dict has names that are no text")
    rest = {} if state is content else {k: v for k, v in content.items() if v is not state}
    meta = rest.get("meta")
    if meta is not None and not isinstance(meta, Mapping):
        raise _unusable(path, f"meta is a {type(meta).__name__}")
    named = dict(state) if as_written else strip_prefix(state)
    return {**rest, "meta": _checked(meta or {}, path), "state_dict": named}


def _checked(meta: Mapping[str, Any], path: str | Path) -> Mapping[str, Any]:
    """`meta`, whose names and colours of the classes are what they should be. Raises CheckpointError."""
    names, palette = meta.get("CLASSES"), meta.get("PALETTE")
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if names is not None and not (listed and all(isinstance(n, str) for n in names)):
        raise _unusable(path, "meta['CLASSES'] is no list of names")
    if palette is not None:
        try:
            colours = torch.as_tensor(palette)
            sound = colours.ndim == 2 and colours.shape[1] == 3 and colours.min() >= 0 and colours.max() <= 255
        except (TypeError, ValueError, RuntimeError, IndexError, OverflowError):
            sound = False
        if not sound:
            raise _unusable(path, "meta['PALETTE'] is no list of colours")
    return meta


def _unusable(path: str | Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}", "a checkpoint as a training run writes it", "use another file")


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    strict: bool = False,
    map_location: Any = "cpu",
    purpose: str | None = None,
) -> dict[str, Any]:
    """Load the weights of a checkpoint into `model`.

    Args:
        model: receives the weights; untouched when an error is raised. Its method ``adapt_weights(state, purpose)``, if
            it has one, turns the state dict of the file into its own before names are matched.
        path: a file written by us, by mmcv, or a plain state dict.
        strict: refuse a file in which any name is missing or left over, or any shape differs.
        map_location: device on which the file's tensors are read.
        purpose: what the weights are for. ``'train'`` and ``'finetune'`` take what fits, for instance without a
            classifier of another number of classes, and the log says what did not. ``'test'`` refuses a file that lacks
            weights of the model, which would be tested with random ones. ``'resume'`` is strict. None tells of names
            that only one side has, and refuses other shapes.

    Returns:
        The whole checkpoint (``meta``, ``state_dict``, ...).

    Raises:
        CheckpointError: the file cannot be read, does not fit, is of another model, or holds weights that are no
            finite numbers.
    """
    if purpose not in (None, *PURPOSES):
        raise ValueError(f"purpose={purpose!r}, expected one of {PURPOSES}")
    return load_content(model, read_checkpoint(path, map_location), path, strict, purpose)


def load_content(
    model: nn.Module, checkpoint: dict[str, Any], path: str | Path, strict: bool = False, purpose: str | None = None
) -> dict[str, Any]:
    """:func:`load_checkpoint` for what :func:`read_checkpoint` has read of `path`."""
    strict = strict or purpose == "resume"
    state, own = checkpoint["state_dict"], model.state_dict()
    adapt = getattr(model, "adapt_weights", None)
    if adapt is not None:
        try:
            state = checkpoint["state_dict"] = dict(adapt(state, purpose or "test"))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.found}", error.expected, error.action) from error
    shared = [name for name in own if name in state]
    check_values(path, {name: state[name] for name in shared}, own)
    misshapen = [name for name in shared if state[name].shape != own[name].shape]
    # files of old torch versions lack this counter, which nothing reads
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    # fewer than a tenth of the weights: that is no head on another backbone
    wrong = 10 * (len(shared) - len(misshapen)) < len(own)
    wrong = wrong or (strict and bool(missing or unexpected)) or (purpose == "test" and bool(missing))
    if wrong or (misshapen and (strict or purpose not in ("train", "finetune"))):
        trains = purpose in ("train", "finetune")
        other = "set model.pretrained if it holds a backbone alone" if trains else "start a training by --load-from"
        raise CheckpointError(
            f"{path}: does not fit {type(model).__name__} ({differences(model, state)})",
            f"the {len(own)} entries of this model, {len(shared)} of them are in the file",
            f"use the config that the checkpoint was trained with, or {other}",
        )
    _tell(path, model, own, state, missing, unexpected, misshapen)
    model.load_state_dict({name: state[name] for name in shared if name not in misshapen}, strict=False)
    return checkpoint


def check_values(path: str | Path, state: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for an entry of `state` that cannot take the place of the one of its name in `own`."""
    for name, value in state.items():
        reason = unusable(value)
        if reason is None and name in own and value.is_floating_point() != own[name].is_floating_point():
            reason = f"has numbers of type {str(value.dtype).removeprefix('torch.')}"
        if reason is not None:
            raise CheckpointError(
                f"{path}: {name[:80]} {reason}",
                "a plain tensor of finite numbers",
                "use another file, or an earlier checkpoint of that run",
            )


def unusable(value: Any) -> str | None:
    """What is wrong with a tensor from a file; None if it is a plain one of finite numbers."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}"
    if value.is_meta:
        return "has a shape and no content"
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.is_complex():
        return "is sparse, quantised, nested or complex"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "claims to be larger than it is"
    if value.is_floating_point() and not torch.isfinite(value).all():
        return "has numbers that are not finite"
    return None


def _tell(
    path: str | Path,
    model: nn.Module,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
) -> None:
    """Log what was not loaded: a warning, unless it is a part that always starts new over another system's weights."""
    new = []
    for prefix in _new_parts(model):
        part = [name for name in own if name.startswith(prefix) and not name.endswith("num_batches_tracked")]
        if set(part) <= set(missing):
            new += part
    if new:
        logger.info("%s: %d entries of the new parts start from their initial values", path, len(new))
    shapes = [f"{name} {list(state[name].shape)} here {list(own[name].shape)}" for name in misshapen]
    for what, names in (
        ("of another shape, keep their initial values", shapes),
        ("keep their initial values, not in the file", [name for name in missing if name not in new]),
        ("not in the model", unexpected),
    ):
        if names:
            logger.warning("%s: %d entries %s: %s", path, len(names), what, _first(names, _LISTED))


def _new_parts(model: nn.Module) -> list[str]:
    """Prefixes of the entries that a checkpoint of the system on which `model` builds does not have.

    A module names them in its attribute ``new_parts``.
    """
    modules = ((f"{name}." if name else "", module) for name, module in model.named_modules())
    return [f"{start}{part}." for start, module in modules for part in getattr(module, "new_parts", ())]


def strip_prefix(state: Mapping[str, Any], prefix: str = "module.") -> dict[str, Any]:
    """`state` with `prefix` taken off the names that start with it, and what ``torch.compile`` puts into them."""
    return {name.replace("_orig_mod.", "").removeprefix(prefix): value for name, value in state.items()}


def differences(model: nn.Module, state: Mapping[str, Any], limit: int = 5) -> str:
    """In words, how `state` differs from what `model` holds: the first names of each kind; "" if it fits."""
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in own
        if isinstance(state.get(name), Tensor) and state[name].shape != own[name].shape
    ]
    kinds = (("missing in the file", missing), ("not in the model", unexpected), ("of another shape", shapes))
    return "; ".join(f"{kind}: {_first(names, limit)}" for kind, names in kinds if names)


def _first(names: Iterable[str], limit: int) -> str:
    names = list(names)
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
