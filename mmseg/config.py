"""Reading a config file: apply ``--options``, and name the keys that nothing would ever read.

mmengine's ``Config`` accepts any key, so that a mistyped one is silently without effect. Sections that this
package reads itself are checked here; dicts with a ``type`` are checked when they are built
(:func:`mmseg.registry.build`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg.errors import ConfigError, nearest

# Keys of the sections that the engine reads. Sections that map to None are open: they hold a `type`, or keys of others.
_SECTIONS: dict[str, frozenset[str] | None] = {
    "model": None,
    "data": frozenset("samples_per_gpu workers_per_gpu train val test persistent_workers pin_memory".split()),
    "optimizer": None,
    "optimizer_config": frozenset("type grad_clip cumulative_iters".split()),
    "lr_config": frozenset("policy warmup warmup_iters warmup_ratio power min_lr by_epoch step gamma".split()),
    "runner": frozenset("type max_iters".split()),
    "checkpoint_config": frozenset("by_epoch interval max_keep_ckpts save_optimizer create_symlink".split()),
    "evaluation": frozenset("interval metric by_epoch save_best efficient_test gpu_collect".split()),
    "log_config": frozenset("interval hooks".split()),
    "dist_params": frozenset("backend".split()),
    "amp": frozenset("dtype".split()),
    "train_cfg": None,
    "test_cfg": None,
    "norm_cfg": None,
}
_VALUES = frozenset(
    "log_level load_from resume_from workflow cudnn_benchmark find_unused_parameters seed deterministic work_dir "
    "gpu_ids compile channels_last gradient_accumulation".split()
)


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a Python config file (which executes it) and apply overrides.

    Args:
        path: the config file, with its ``_base_`` files beside it.
        options: dotted keys and their new values, as ``--options`` gives them.

    Raises:
        ConfigError: the file is missing or broken, or a key is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist", "a Python config file", "check the path")
    try:
        config = Config.fromfile(str(path), lazy_import=False)
    except Exception as error:  # whatever the file's own code raises
        raise ConfigError(
            f"config file {path} cannot be read: {type(error).__name__}: {error}",
            "a Python file of assignments, its _base_ files present",
            "mend the file",
        ) from error
    _check_placeholders(config, path)
    if options:
        for key in options:
            _check_option(config, key)
        config.merge_from_dict(dict(options))
    check_config(config, str(path))
    return config


def check_config(config: Mapping[str, Any], source: str = "config") -> None:
    """Raise ConfigError if a section holds a key that is never read, or a section's name is nearly right.

    Free variables (``crop_size``, ``train_pipeline`` ...) are fine as long as they do not look like a
    misspelt section.
    """
    known = _known_names()
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                raise ConfigError(f"{source}: unknown key {name!r}", "a known section", f"did you mean {close[0]!r}?")
    for section, keys in _SECTIONS.items():
        entry = config.get(section)
        if keys is None or entry is None:
            continue
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{source}: {section} = {entry!r}", f"a dict with keys {sorted(keys)}", "make it a dict")
        for key in entry:
            if key not in keys:
                raise ConfigError(
                    f"{source}: unknown key '{section}.{key}'", f"one of {sorted(keys)}", nearest(key, keys)
                )


def _check_option(config: Config, key: str) -> None:
    """Raise ConfigError if a dotted ``--options`` key leads to nothing that the config or the engine knows."""
    first, *rest = key.split(".")
    if first not in config and first not in _known_names():
        raise ConfigError(
            f"--options {key}: no entry {first!r} in the config", "an existing key", nearest(first, _known_names())
        )
    node: Any = config.get(first)
    for depth, part in enumerate(rest):
        path = ".".join([first, *rest[:depth]])
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(f"--options {key}: {path} is a list of {len(node)} entries", "an index", "fix it")
            node = node[int(part)]
            continue
        allowed = _SECTIONS.get(first) if depth == 0 else None
        if not isinstance(node, Mapping):
            node = {}
            if allowed is None and first not in _SECTIONS:
                raise ConfigError(f"--options {key}: {path} is a value, not a section", "an existing key", "fix it")
        last = depth == len(rest) - 1
        is_component = "type" in node or (depth == 0 and first in _SECTIONS and allowed is None)
        if part not in node and not (last and is_component) and part not in (allowed or ()):
            raise ConfigError(
                f"--options {key}: no entry {part!r} in {path}",
                "an existing key",
                nearest(part, {*node, *(allowed or ())}),
            )
        node = node.get(part)


def _known_names() -> set[str]:
    return {*_SECTIONS, *_VALUES}


def _check_placeholders(config: Config, path: Path) -> None:
    """mmengine leaves a placeholder behind where a quoted ``{{ _base_.x }}`` stands for a non-string."""
    for key, value in _leaves(config):
        if isinstance(value, str) and "_base_" in value and ("{{" in value or "BASEVAR" in value.upper()):
            raise ConfigError(
                f"{path}: {key} = {value!r}",
                "{{ _base_.name }} without quotes around it",
                "remove the quotes, so that the value is not turned into a string",
            )


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested config with its dotted path."""
    if isinstance(node, Mapping):
        children = list(node.items())
    elif isinstance(node, list | tuple):
        children = list(enumerate(node))
    else:
        yield prefix, node
        return
    for key, value in children:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
