"""Where a checkpoint's weights are, and the facts beside them: of a shared folder, the Hub, or a safetensors file.

A shared folder (:mod:`mmseg.writing.shared_model`) has

- ``config.json``: what ``meta`` of a checkpoint has, the sections of the config among them as plain data;
- ``model.safetensors``: the weights;
- ``README.md``: the model card, for people.

Nothing of it is executed.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mmseg.errors import CheckpointError, DataError
from mmseg.files import read_json
from mmseg.hub import fetch, is_address, parse_address
from mmseg.version import WRITER

FACTS, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1  # of config.json
CONFIG = "config"  # in `meta`: the sections of a config as JSON, text in a checkpoint, an object in config.json
META = "mmseg_meta"  # in the header of a safetensors file: `meta` as JSON
FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")  # of files of weights
_AS_WRITTEN = "a folder as save_pretrained and tools/publish_model.py write it"


def is_model_folder(path: str | Path) -> bool:
    """Whether `path` is a folder with a ``config.json``."""
    return os.path.isfile(Path(path, FACTS))


def locate(checkpoint: str | Path) -> tuple[Path, dict[str, Any] | None]:
    """The file of weights that the name of a checkpoint leads to, and the facts that are not in that file.

    Args:
        checkpoint: a file, a shared folder, or ``hf://user/name``.

    Returns:
        The file; and what ``meta`` of a checkpoint would say, None for files that say it themselves.

    Raises:
        CheckpointError: a folder that is no shared one, or a damaged one; or as :func:`fetch_model` says.
        ConfigError: an address of the Hub that cannot be one.
    """
    path = _fetched(*parse_address(checkpoint)) if is_address(checkpoint) else Path(checkpoint)
    if "\0" in str(path):
        return path, None
    if os.path.isdir(path):
        return _weights_in(path, checkpoint), _facts_in(path, checkpoint)
    if path.suffix != ".safetensors" or not os.path.isfile(path):
        return path, None
    facts = _header_of(path)
    if facts == {} and path.name == WEIGHTS and is_model_folder(path.parent) and _is_ours(path.parent):
        facts = _facts_in(path.parent, path.parent)  # the file was named, and not its folder
    return path, facts


def fetch_model(
    repo_id: str, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """Download a shared folder of the Hub; of a repository with a model of something else ``config.json`` alone.

    Args:
        repo_id, revision, token, local_files_only: see :func:`mmseg.hub.fetch`.

    Raises:
        CheckpointError: its ``config.json`` is none of ours; or as :func:`mmseg.hub.fetch` says, like all others.
    """
    folder = fetch(repo_id, (FACTS,), revision, token, local_files_only)
    _facts_in(folder, f"hf://{repo_id}")
    return fetch(repo_id, (FACTS, WEIGHTS), folder.name, token, local_files_only)  # of the same commit


@functools.cache
def _fetched(repo_id: str, revision: str | None) -> Path:
    """Looked up once in a process, so that all of it is of one day."""
    return fetch_model(repo_id, revision)


def _is_ours(folder: Path) -> bool:
    try:
        facts = read_json(folder / FACTS)
    except DataError:
        return False
    return isinstance(facts, dict) and facts.get("writer") == WRITER


def _weights_in(folder: Path, name: str | Path) -> Path:
    weights = folder / WEIGHTS
    try:
        os.stat(folder / FACTS)
    except PermissionError as error:
        raise CheckpointError(
            f"{name}: no permission to look into it", "a readable folder", "change its mode"
        ) from error
    except OSError:
        pass
    if os.path.isfile(folder / "model.json") and not os.path.isfile(folder / FACTS):
        raise CheckpointError(
            f"{name}: is an export, which has graphs and no weights",
            f"a file of weights, or {_AS_WRITTEN}",
            "give the checkpoint that it was made of; tools/infer.py runs exports",
        )
    if not os.path.isfile(folder / FACTS):
        raise CheckpointError(
            f"{name}: is a folder without {FACTS}",
            f"a file of weights, or {_AS_WRITTEN}",
            f"name a file in it, for example latest.pth; a shared folder gets its {FACTS} last, when it is whole",
        )
    if not os.path.isfile(weights):
        raise CheckpointError(f"{name}: there is no {WEIGHTS}", _AS_WRITTEN, "copy or download the whole folder again")
    return weights


def _facts_in(folder: Path, name: str | Path) -> dict[str, Any]:
    """``meta`` of a shared folder. Raises CheckpointError."""
    place = f"{name}/{FACTS}"
    try:
        facts = read_json(folder / FACTS)
    except DataError as error:
        raise CheckpointError(error.found, _AS_WRITTEN, "copy or download the whole folder again") from error
    if not isinstance(facts, dict) or facts.get("writer") != WRITER:
        kind = facts.get("model_type") if isinstance(facts, dict) else None
        raise CheckpointError(
            f"{place}: not written by this package" + (f" (model_type {kind!r:.60})" if kind else ""),
            _AS_WRITTEN,
            "open it with the library that has written it",
        )
    if facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{place}: of format {facts.get('format')!r:.40}, by version {facts.get('mmseg_version')!r:.40}",
            f"format {FORMAT}",
            "use the version of this package that has written it, or a newer one",
        )
    if not isinstance(facts.get(CONFIG), Mapping):
        raise CheckpointError(
            f"{place}: its config is a {type(facts.get(CONFIG)).__name__}, no plain data",
            "the sections of a config as an object; text of Python is not executed",
            "write the folder again with tools/publish_model.py",
        )
    rest = {key: value for key, value in facts.items() if key not in ("format", "files")}
    return {**rest, CONFIG: json.dumps(facts[CONFIG])}


def _header_of(path: Path) -> dict[str, Any] | None:
    """``meta`` in a safetensors file; None if the file is damaged, which reading it will tell."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(META)
    except (SafetensorError, OSError):
        return None
    if text is None:
        return {}
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError(
            f"{path}: {META} in its header is no JSON object", "what tools/convert.py writes", "make the file again"
        )
    return meta
