"""The config inside of a checkpoint or a shared folder: written as plain data, read without running anything."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmseg import sections
from mmseg.config import load_config, override
from mmseg.errors import CheckpointError, ConfigError
from mmseg.mmengine_names import Config
from mmseg.model_folder import CONFIG, locate
from mmseg.weights import read_checkpoint

logger = logging.getLogger("mmseg.config")

_SCALARS = (str, int, float, bool, type(None))
_MAX_CHARACTERS = 2**24


def packed_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The entry of ``meta`` that holds the sections of a config, as JSON; none, and a warning, if that cannot be.

    Variables of the file have been copied into the sections; tuples become lists, which mean the same in all of them.
    """
    try:
        return {CONFIG: json.dumps(plain_sections(config), indent=1)}
    except ConfigError as error:
        logger.warning("checkpoints will not carry the config: %s; keep the config file", error.found)
        return {}


def plain_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a config as what JSON can hold. Raises ConfigError if they hold something else."""
    carried = {name: value for name, value in config.items() if name in sections.TABLE}
    strange = _strange(carried, "")
    if strange is not None:
        raise ConfigError(
            f"{strange} is no plain data",
            "numbers, text, lists and dicts with names as keys",
            "write it so in the config",
        )
    return json.loads(json.dumps(carried))


def _strange(value: Any, place: str) -> str | None:
    """The first place whose value JSON does not give back; None if there is none."""
    if isinstance(value, Mapping):
        inner = {f"{place}.{key}".lstrip("."): entry for key, entry in value.items()}
        if not all(isinstance(key, str) for key in value):
            return place
    elif isinstance(value, list | tuple):
        inner = {f"{place}.{number}": entry for number, entry in enumerate(value)}
    else:
        return None if type(value) in _SCALARS else place
    found = (_strange(entry, where) for where, entry in inner.items())
    return next((where for where in found if where is not None), None)


def config_of(checkpoint: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The config that a checkpoint of ours carries, with other values by dotted keys.

    Nothing in the file is executed: a config that is text of Python (files of mmcv, our own of old) is refused, and
    modules that it names in ``custom_imports`` are not imported.

    Args:
        checkpoint: as a training or ``tools/publish_model.py`` writes it; a file, a shared folder or ``hf://user/name``.
        options: dotted config keys and their new values.

    Raises:
        CheckpointError: the file cannot be read, or carries no config that is plain data.
        ConfigError: the config names modules that have not been imported, or an option does not fit.
    """
    meta = locate(checkpoint)[1]
    if meta is None:
        meta = read_checkpoint(checkpoint, map_location="meta")["meta"]
    carried = _parsed(meta.get(CONFIG), checkpoint)
    options = dict(options or {})
    missing = [name for name in _modules_of(carried.pop("custom_imports", None), checkpoint) if name not in sys.modules]
    if missing and not any(key.startswith("custom_imports") for key in options):
        raise ConfigError(
            f"{checkpoint}: its config needs modules of its author ({', '.join(map(str, missing))}), which are not "
            "imported on the word of a checkpoint",
            "modules that have been imported, or are named by you",
            f"if you trust them: --options custom_imports.imports={','.join(map(str, missing))}, or give the config "
            "file",
        )
    try:
        config = Config(carried)
    except KeyError as error:  # names that mmengine keeps for itself
        raise _no_sections(checkpoint, f"{error.args[0]}") from error
    return override(config, options)


def config_for(config: str | Path | None, checkpoint: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The config of a config file, or without one that of a checkpoint, as commands take them.

    Raises:
        ConfigError: no config file and no checkpoint ('none'), and as :func:`mmseg.config.load_config` says.
        CheckpointError: see :func:`config_of`.
    """
    if config is not None:
        return load_config(config, options)
    if str(checkpoint).lower() == "none" or str(checkpoint).endswith(".py"):
        what = "no checkpoint" if str(checkpoint).endswith(".py") else "an untrained network without a config"
        raise ConfigError(what, "CONFIG CHECKPOINT, or a CHECKPOINT that carries its config", "name both files")
    return config_of(checkpoint, options)


def _modules_of(custom_imports: Any, path: str | Path) -> list[str]:
    """The modules that a carried config names. Raises CheckpointError."""
    named = custom_imports.get("imports") if isinstance(custom_imports, dict) else custom_imports
    named = [named] if isinstance(named, str) else named or []
    sound = isinstance(custom_imports, dict | type(None)) and isinstance(named, list)
    if not sound or not all(isinstance(name, str) for name in named):
        raise _no_sections(path, "custom_imports is not dict(imports=[...])")
    return named


def _no_sections(path: str | Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: its config cannot be used, {what}", "a config as this package writes it", "give the config file"
    )


def _parsed(text: Any, path: str | Path) -> dict[str, Any]:
    """The sections that ``meta['config']`` holds. Raises CheckpointError."""
    if isinstance(text, str) and len(text) <= _MAX_CHARACTERS:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and content:
            return content
    what = "carries no config" if text is None else "carries its config as text of Python, which is not executed"
    raise CheckpointError(
        f"{path}: {what}",
        "a checkpoint of this package, which carries its config as JSON in meta['config']",
        "give the config file as well (tools: CONFIG before the checkpoint; init_segmentor(config, checkpoint))",
    )
