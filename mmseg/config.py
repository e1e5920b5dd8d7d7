"""Reading a config file: apply ``--options``, and refuse every key that nothing reads and every value that cannot be.

mmengine's ``Config`` accepts any key, so that a mistyped one is silently without effect. Here the sections are held
against :mod:`mmseg.sections` when the file is read, and dicts with a ``type`` against the constructors of their types
when they are built (:mod:`mmseg.registry`). Other names are variables of the file itself.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmseg import compat, config_files, data_entries, sections
from mmseg.data_entries import SECTIONS, data_sets
from mmseg.errors import ConfigError, nearest
from mmseg.mmengine_names import Config
from mmseg.registry import DATASETS, takes
from mmseg.values import shown

logger = logging.getLogger("mmseg.config")

_ENDINGS = (".py", ".json", ".yaml", ".yml")  # of config files


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a Python config file (which executes it), apply overrides, and import the user's modules that it names.

    Args:
        path: the config file, with its ``_base_`` files beside it.
        options: dotted keys and their new values, as ``--options`` gives them.

    Raises:
        ConfigError: the file is missing or broken, a key is not known, a value is not what its section takes, or a
            module of ``custom_imports`` cannot be imported.
    """
    return override(_read(Path(path)), options or {}, Path(path))


def override(config: Config, options: Mapping[str, Any], path: Path | None = None) -> Config:
    """A copy of `config` with other values, checked, and its ``custom_imports`` imported.

    Args:
        config: a config.
        options: dotted keys and their new values.
        path: the file that `config` was just read from, which can be read again with other values of its variables.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    config = _with_variables(copy.deepcopy(config), path, options)
    _merge(config, {key: value for key, value in options.items() if _is_read(key)})
    if "data_root" in config:
        _share_data_root(config, options)
    data_entries.spread(config, options, _takes)
    _name_data_sets(config)
    check_config(config, config.filename or "config")
    data_entries.tell_of_windows(config)
    data_entries.tell_of_other_inputs(config)
    _import_modules(config.get("custom_imports"))
    return config


def check_config(config: Mapping[str, Any], source: str = "config", tell: bool = False) -> None:
    """Raise ConfigError for sections and keys that nothing reads, and for values that cannot be.

    Variables of the file (``crop_size``, ``train_pipeline`` ...) are fine as long as they do not look like a misspelt
    section.

    Args:
        config: what :func:`load_config` returns, or a part of it.
        source: name of the file, for messages.
        tell: warn in the log of names that are known to have no effect.
    """
    for name, value in compat.effective(["config"], config, "config", tell=tell).items():
        if name in sections.TABLE:
            sections.check(name, value, tell)
        elif name in compat.INSTEAD and value not in (None, [], {}):
            raise ConfigError(
                f"{name} = {shown(value)}: nothing reads this section ({source})",
                "sections of this package",
                f"write {compat.INSTEAD[name]}",
            )
        elif close := _section_like(name):
            raise ConfigError(f"{source}: unknown key {name!r}", "a known section", f"did you mean {close!r}?")
    if tell:
        _warn_of_unread(config)


@functools.cache
def _section_like(name: str) -> str | None:
    """The section that a name looks like a misspelling of."""
    return next(iter(difflib.get_close_matches(name, sections.TABLE, n=1, cutoff=0.85)), None)


def require(config: Mapping[str, Any], *keys: str) -> None:
    """Raise ConfigError unless the dotted `keys` of a config are there and not None."""
    for key in keys:
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if hasattr(value, "get") else None
        if value is None:
            source = getattr(config, "filename", None) or "the config"
            raise ConfigError(f"{key} is missing", f"a section {key} in {source}", f"add {key}, or its _base_ file")


def _read(path: Path) -> Config:
    """The config of a file."""
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist", "a Python config file", "check the path")
    if path.suffix not in _ENDINGS:
        raise ConfigError(
            f"{path} in the place of the config file",
            f"a file that ends in {', '.join(_ENDINGS)}; a checkpoint comes after it",
            "give CONFIG CHECKPOINT in this order (in Python: config=..., checkpoint=...); a checkpoint of ours "
            "carries its config, and can be given alone as the checkpoint",
        )
    _refuse_quotes(path)
    try:
        return Config.fromfile(str(path), lazy_import=False, import_custom_modules=False)
    except (Exception, SystemExit) as error:  # whatever the file's own code raises
        raise ConfigError(
            f"config file {path} cannot be read: {type(error).__name__}: {error}",
            "a Python file of assignments, its _base_ files present",
            "mend the file",
        ) from error


def _refuse_quotes(path: Path) -> None:
    """Raise ConfigError for a ``'{{ _base_.name }}'`` in quotes in the file or one that it is based on."""
    file = config_files.parse(path)
    for where, line, text in config_files.quoted_placeholders(file) if file else ():
        raise ConfigError(
            f"{where}, line {line}: {text!r}",
            "{{ _base_.name }} without quotes around it",
            "remove the quotes, which would turn the value into a text",
        )


# ---------------------------------------------------------------------- overrides


def _is_read(key: str) -> bool:
    """Whether a dotted key belongs to a section, and is no variable of the file."""
    return key.split(".")[0] in sections.TABLE


def _merge(config: Config, options: Mapping[str, Any]) -> None:
    """Put the values of dotted keys of sections into `config`; what ``_delete_`` drops is that of the file alone."""
    for key, value in sorted(options.items(), key=lambda option: not option[0].endswith("._delete_")):
        _check_option(config, key)
        try:
            config.merge_from_dict(dict([_whole_list(config, key, value)]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"--options {key} cannot be applied: {error}", "a key that its section has room for", "fix it"
            ) from error


def _whole_list(config: Config, key: str, value: Any) -> tuple[str, Any]:
    """`key` and `value`; for an entry of a list (``dilation.0``) those of the list, since only dicts can be merged."""
    holder, _, part = key.rpartition(".")
    node: Any = config
    for name in holder.split(".") if holder else ():
        node = node[int(name)] if isinstance(node, list | tuple) else node.get(name) if node else None
    if not isinstance(node, list | tuple) or isinstance(value, Mapping):
        return key, value
    entries = list(node)
    entries[int(part)] = value
    return _whole_list(config, holder, type(node)(entries))


def _check_option(config: Config, key: str) -> None:
    """Raise ConfigError if a dotted key leads through something that is not there."""
    first, *rest = key.split(".")
    node: Any = config.get(first)
    for depth, part in enumerate(rest):
        place = ".".join([first, *rest[:depth]])
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(f"--options {key}: {place} is a list of {len(node)} entries", "an index", "fix it")
            node = node[int(part)]
            continue
        if node is not None and not isinstance(node, Mapping):
            raise ConfigError(
                f"--options {key}: {place} = {shown(node)} is a value, not a section", "an existing key", "fix it"
            )
        node = node or {}
        is_last = depth == len(rest) - 1
        if part not in node and not is_last and "type" in node:  # the last one is checked when the object is built
            raise ConfigError(f"--options {key}: no entry {part!r} in {place}", "an existing key", nearest(part, node))
        node = node.get(part)


def _with_variables(config: Config, path: Path | None, options: Mapping[str, Any]) -> Config:
    """The config with other values of variables that its file has copied into its sections.

    Raises:
        ConfigError: that cannot be done, or would have no effect.
    """
    variables = {key: value for key, value in options.items() if not _is_read(key)}
    for key in variables:
        name = key.split(".")[0]
        if name not in config:
            raise ConfigError(
                f"--options {key}: no entry {name!r} in the config",
                "an existing key",
                f"write {compat.INSTEAD[name]}" if name in compat.INSTEAD else nearest(name, sections.TABLE),
            )
    file = config_files.parse(path) if variables and path is not None else None
    changed = None
    if file is not None and not any("." in key for key in variables):
        changed = config_files.with_values(file, variables)
    for key, value in variables.items():
        if changed is None or not _differs(config, config_files.with_values(file, {key: value})):
            _refuse_variable(config, key)
    return config if changed is None else changed


def _differs(config: Config, other: Config | None) -> bool:
    return other is None or any(config.get(name) != other.get(name) for name in sections.TABLE)


def _refuse_variable(config: Config, key: str) -> None:
    """Raise the ConfigError that says under which keys the value of a variable stands in the sections."""
    name, _, inside = key.partition(".")
    keys = [f"{place}.{inside}" if inside else place for place in places_of(config, config[name])]
    raise ConfigError(
        f"--options {key}: {name!r} is a variable of the config file, which nothing reads after the file",
        "a key of a section",
        f"set {' and '.join(keys)}" if keys else "remove it: its value stands in no section",
    )


def places_of(config: Mapping[str, Any], value: Any) -> list[str]:
    """The dotted paths at which a value stands in the sections of a config."""
    return [place for section in sections.TABLE for place in _places(config.get(section), value, section)]


def _places(node: Any, value: Any, place: str) -> Iterator[str]:
    """The dotted paths at which a value stands in a section; a dict also where its entries are among others."""
    if node == value or (isinstance(value, Mapping) and value and isinstance(node, Mapping) and _contains(node, value)):
        yield place
    elif isinstance(node, Mapping):
        for key, entry in node.items():
            yield from _places(entry, value, f"{place}.{key}")
    elif isinstance(node, list | tuple):
        for number, entry in enumerate(node):
            yield from _places(entry, value, f"{place}.{number}")


def _contains(node: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return all(key in node and node[key] == entry for key, entry in value.items())


def with_data_sets_of_method(config: Config) -> Config:
    """`config`, or a copy of it in which official data sets have the names of those that its method means by them."""
    if not _renamed(config):
        return config
    config = copy.deepcopy(config)
    _name_data_sets(config)
    return config


def _name_data_sets(config: Config) -> None:
    for dataset, changes in _renamed(config):
        dataset.update(changes)


def _renamed(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The data sets that mean something else by the name of their type in this method, and what they are here."""
    model, data = config.get("model"), config.get("data")
    head = model.get("decode_head") if isinstance(model, Mapping) else None
    kind = head.get("type") if isinstance(head, Mapping) else None
    found = []
    for name in SECTIONS if isinstance(data, Mapping) else ():
        for place, dataset in data_sets(data.get(name), f"data.{name}"):
            if changes := compat.data_set(kind, dataset, place):
                found.append((dataset, changes))
    return found


def _share_data_root(config: Config, options: Mapping[str, Any]) -> None:
    """Give ``data_root`` of the config to the data sets that have none; that of the options to all but those that the
    options give their own."""
    data, override = config.get("data"), "data_root" in options
    for name in SECTIONS if isinstance(data, Mapping) else ():
        for place, dataset in data_sets(data.get(name), f"data.{name}"):
            given = f"{place}.data_root" in options
            if not given and (override or "data_root" not in dataset) and _takes(dataset.get("type"), "data_root"):
                dataset["data_root"] = config["data_root"]


def _takes(name: Any, key: str) -> bool:
    """Whether the data set of a type has an argument.

    Those that are not registered yet are the package's own: all have a `data_root`, and VSPW's a `num_classes`.
    """
    cls = DATASETS.module_dict.get(name) if isinstance(name, str) else None
    return takes(cls, key) if cls is not None else key == "data_root" or str(name).startswith("VSPW")


# ---------------------------------------------------------------------- what else a config does


def _import_modules(custom_imports: Mapping[str, Any] | None) -> None:
    """Import the modules of ``custom_imports``, which register a user's own classes.

    The working directory can be imported from, as by ``python -m``.

    Raises:
        ConfigError: one cannot be imported, unless ``allow_failed_imports`` is set, which makes it a warning.
    """
    names = (custom_imports or {}).get("imports") or ()
    folder = os.getcwd()
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in [names] if isinstance(names, str) else names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module's own code raises
            problem = f"custom_imports: {name!r} cannot be imported: {type(error).__name__}: {error}"
            if custom_imports.get("allow_failed_imports"):
                logger.warning("%s", problem)
                continue
            action = f"mend it, or put it below {folder} or on PYTHONPATH"
            raise ConfigError(problem, "a module that can be imported", action) from error


def _warn_of_unread(config: Mapping[str, Any]) -> None:
    """Say which names of a config are neither sections nor read by its files.

    A written-out config, as work folders hold it, has copied its variables into the sections: those are no news.
    """
    filename = getattr(config, "filename", None)
    file = config_files.parse(Path(filename)) if filename else None
    read = config_files.names_read(file) if file else set(config)
    for name in config:
        if name not in sections.TABLE and name not in read and not places_of(config, config[name]):
            logger.warning("%s = %s in %s: nothing reads this name", name, shown(config[name]), filename)
