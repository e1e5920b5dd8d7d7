"""Checkpoints: written so that no crash can damage one, read so that no file can run code.

A checkpoint is ``dict(meta, state_dict, optimizer, ...)``. ``meta['iter']`` is the number of finished iterations.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from mmseg.errors import CheckpointError
from mmseg.version import __version__
from mmseg.weights import differences, read_weights_file, strip_prefix

logger = logging.getLogger("mmseg.engine")

LATEST = "latest.pth"
_TEMPORARY = ".writing"
_WRITER = "mmseg-video"
_LISTED = 10


class _Sink:
    """A file that torch.save can write to; keeps the first error, which torch would turn into another one."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.error = file, None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is flushed once, when all is written."""


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that `path` holds either its old content or all of the new one, whatever happens.

    The data go to a temporary file in the same folder, which is synced and then renamed.

    Raises:
        CheckpointError: the file cannot be written (full disk, no permission); an old file at `path` is intact.
    """
    path = Path(path)
    with _replacing(path) as file:
        sink = _Sink(file)
        torch.save(dict(state), sink)
        if sink.error is not None:
            raise sink.error


@contextlib.contextmanager
def _replacing(path: Path):
    """A new file open for writing that takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # mode 0666 less the umask, unlike tempfile's 0600
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error})",
            "a writable folder with enough space",
            "free some space, lower checkpoint_config.max_keep_ckpts or choose another --work-dir, then resume from "
            f"{LATEST}; earlier checkpoints are intact",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporary(folder: str | Path) -> None:
    """Remove the unfinished files that a killed process left in `folder`."""
    for file in Path(folder).glob(f".*{_TEMPORARY}"):
        file.unlink(missing_ok=True)


def point_latest(path: str | Path) -> None:
    """Let ``latest.pth`` beside `path` lead to it: a relative link, or a copy where links cannot be made.

    The old one is replaced in one step, so that it leads to a complete checkpoint at every moment.
    """
    path = Path(path)
    latest = path.with_name(LATEST)
    temporary = path.with_name(f".{LATEST}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
    try:
        os.symlink(path.name, temporary)
        os.replace(temporary, latest)
    except OSError:
        temporary.unlink(missing_ok=True)
        with _replacing(latest) as file, open(path, "rb") as source:
            shutil.copyfileobj(source, file)
    _sync_folder(path.parent)


def iteration_checkpoints(folder: str | Path) -> list[Path]:
    """The ``iter_N.pth`` files of a folder, lowest N first."""
    numbered = [(re.fullmatch(r"iter_(\d+)\.pth", file.name), file) for file in Path(folder).glob("iter_*.pth")]
    return [file for _, file in sorted((int(match[1]), file) for match, file in numbered if match)]


def find_latest(folder: str | Path) -> Path | None:
    """The newest checkpoint of a work folder, or None."""
    latest = Path(folder) / LATEST
    if latest.is_file():
        return latest
    numbered = iteration_checkpoints(folder)
    return numbered[-1] if numbered else None


def prune(folder: str | Path, keep: int) -> None:
    """Remove all but the `keep` newest ``iter_N.pth``; a value below 1 keeps all. What latest.pth leads to stays."""
    if keep < 1:
        return
    kept = (Path(folder) / LATEST).resolve()
    for file in iteration_checkpoints(folder)[:-keep]:
        if file.resolve() != kept:
            file.unlink(missing_ok=True)


def own_meta() -> dict[str, Any]:
    """The entries of ``meta`` by which :func:`finished_iterations` knows our own files."""
    return {"writer": _WRITER, "mmseg_version": __version__}


def finished_iterations(checkpoint: Mapping[str, Any], path: str | Path) -> int:
    """How many updates a checkpoint has seen.

    Files of mmcv 1.x count from 0: their ``iter_10.pth`` holds 9 in ``meta['iter']``. They lack our own entries.

    Raises:
        CheckpointError: the file has no iteration number.
    """
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("iter"), int):
        raise CheckpointError(
            f"{path}: holds weights but no iteration number",
            "a checkpoint that a training run wrote",
            "start from its weights with --load-from instead of --resume-from",
        )
    return meta["iter"] if meta.get("writer") == _WRITER else meta["iter"] + 1


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint as a dict with at least ``state_dict`` and ``meta``, names without a ``module.`` prefix.

    Files that hold nothing but named tensors, or have them under ``model``, are accepted as well.

    Raises:
        CheckpointError: the file is missing, truncated, no checkpoint, or asks for more than tensors and plain values.
    """
    content = read_weights_file(path, map_location)
    state = content
    if isinstance(content, Mapping):
        state = next((content[k] for k in ("state_dict", "model") if isinstance(content.get(k), Mapping)), content)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        found = f"keys {list(content)[:5]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path}: no weights in it ({found})", "a dict with 'state_dict'", "check that it is the right file"
        )
    rest = {} if state is content else {k: v for k, v in content.items() if v is not state}
    return {"meta": {}, **rest, "state_dict": strip_prefix(state)}


def load_checkpoint(
    model: nn.Module, path: str | Path, strict: bool = False, map_location: Any = "cpu", complete: bool = False
) -> dict[str, Any]:
    """Load the weights of a checkpoint into `model`.

    Without `strict`, names that only one side has are logged as a warning (that is how a new head goes on top of a
    trained backbone); a file of another model is an error all the same.

    Args:
        model: receives the weights; untouched when an error is raised.
        path: a file written by us, by mmcv, or a plain state dict.
        strict: refuse a file in which any name is missing or left over.
        map_location: device on which the file's tensors are read.
        complete: refuse a file that lacks weights of the model, which would be tested with random ones.

    Returns:
        The whole checkpoint (``meta``, ``state_dict``, ...).

    Raises:
        CheckpointError: the file cannot be read, entries have another shape, or it is of another model.
    """
    checkpoint = read_checkpoint(path, map_location)
    state, own = checkpoint["state_dict"], model.state_dict()
    shared = [name for name in own if name in state]
    misshapen = [name for name in shared if getattr(state[name], "shape", None) != own[name].shape]
    foreign = 10 * len(shared) < len(own)  # fewer than a tenth of the names: that is no head on another backbone
    # files of old torch versions lack this counter, which nothing reads
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    if misshapen or foreign or (strict and (missing or unexpected)) or (complete and missing):
        raise CheckpointError(
            f"{path}: does not fit {type(model).__name__} ({differences(model, state)})",
            f"the {len(own)} entries of this model, {len(shared)} of them are in the file",
            "use the config that the checkpoint was trained with",
        )
    _warn_about_names(path, missing, unexpected)
    model.load_state_dict(state, strict=False)
    return checkpoint


def _warn_about_names(path: str | Path, missing: list[str], unexpected: list[str]) -> None:
    for what, names in (("keeps its present value, not in the file", missing), ("not in the model", unexpected)):
        if names:
            rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            logger.warning("%s: %d entries: %s: %s%s", path, len(names), what, ", ".join(names[:_LISTED]), rest)
