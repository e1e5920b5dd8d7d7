"""Checkpoints to give away as one file: weights and what they need to be used, and nothing else of their training.

As folders and repositories: :mod:`mmseg.models.sharing`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmseg.errors import CheckpointError
from mmseg.files import write_bytes
from mmseg.weights import check_values, read_checkpoint
from mmseg.writing.shared_model import halved

# What stays of `meta`: whose file it is, what its classes are, how it was trained and how good it is.
_KEPT = ("writer", "mmseg_version", "CLASSES", "PALETTE", "iter", "score")
_HASH = 8  # hexadecimal digits in the name of the file
_ENDINGS = (".pth", ".pt")
_OTHER_FILES = (".bin", ".ckpt", ".gz", ".json", ".onnx", ".pkl", ".py", ".safetensors", ".tar", ".zip")


def is_file_name(target: str | Path) -> bool:
    """Whether a target is called like a file; a folder may have a dot in its name (``cffm.b1``)."""
    return Path(target).suffix in (*_ENDINGS, *_OTHER_FILES)


def published_meta(meta: Mapping[str, Any], with_config: bool) -> dict[str, Any]:
    """What stays of ``meta`` in a file to give away."""
    kept = [name for name in meta if name in _KEPT or (with_config and name.startswith("config"))]
    return {name: meta[name] for name in sorted(kept)}


def publish(
    source: str | Path, target: str | Path, with_config: bool = True, half: bool = False
) -> tuple[Path, list[str]]:
    """Write the weights of a checkpoint to ``<target>-<hash>.pth``, hash being the start of the file's SHA-256.

    The same weights and facts give the same bytes, and so the same name. Of a training with averaged weights these are
    the averages, which are what was evaluated.

    Args:
        source: a checkpoint of ours, of mmcv, any other file of weights, or a shared folder.
        target: name of the new file without the hash, which takes the place of an older one.
        with_config: keep the config in ``meta``.
        half: store numbers as float16.

    Returns:
        The new file, and the names of what was left out.

    Raises:
        CheckpointError: the source cannot be read, has weights that are not finite, or does not fit into float16; or
            the target is named like something else.
        WriteError: the target cannot be written.
    """
    target = Path(target)
    if target.suffix not in _ENDINGS:
        raise CheckpointError(
            f"{target} as the name of a checkpoint",
            f"a name that ends in {' or '.join(_ENDINGS)}, or one without an ending for a folder",
            "add .pth, or use tools/convert.py for a .safetensors file",
        )
    checkpoint = read_checkpoint(source)
    state = {name: value.contiguous() for name, value in checkpoint["state_dict"].items() if torch.is_tensor(value)}
    if half:
        state = halved(state)
    check_values(source, state, {})
    meta = published_meta(checkpoint["meta"], with_config)
    dropped = [key for key in checkpoint if key not in ("meta", "state_dict")]
    dropped += [f"meta.{name}" for name in checkpoint["meta"] if name not in meta]
    file = io.BytesIO()
    # clones: a part of a larger tensor would take all of it along
    torch.save({"meta": meta, "state_dict": {name: value.clone() for name, value in state.items()}}, file)
    content = file.getvalue()
    path = target.with_name(f"{target.stem}-{hashlib.sha256(content).hexdigest()[:_HASH]}{target.suffix}")
    write_bytes(path, content)
    return path, dropped
