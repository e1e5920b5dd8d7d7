"""The registries, and one function that builds an object from its config dict.

Every ``dict(type='Name', ...)`` of a config goes through :func:`build`, so that an unknown type or an
unknown key is reported the same way everywhere. Official type names are translated by
:mod:`mmseg.compat` on the way.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

from mmseg import compat
from mmseg.errors import ConfigError, nearest

MODELS = Registry("model", locations=["mmseg.models"])
DATASETS = Registry("dataset", locations=["mmseg.datasets"])
TRANSFORMS = Registry("transform", locations=["mmseg.datasets.transforms"])
METRICS = Registry("metric", locations=["mmseg.evaluation"])


def build(registry: Registry, cfg: Mapping[str, Any], where: str = "", **extra: Any) -> Any:
    """Build the object that `cfg` describes.

    Args:
        registry: where the type is looked up.
        cfg: ``dict(type='Name', key=value, ...)``; official type names are accepted.
        where: dotted path of `cfg` in the config file, for error messages.
        extra: further constructor arguments, which win over those of `cfg`.

    Raises:
        ConfigError: `cfg` has no type, the type is not known, or a key is not an argument of it.
    """
    place = where or registry.name
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise ConfigError(
            f"{place}: {cfg!r} has no 'type'", f"a dict with the type of a {registry.name}", "add type='...'"
        )
    kwargs = compat.translate(registry.name, dict(cfg))
    name = kwargs.pop("type")
    cls = registry.get(name) if isinstance(name, str) else name
    if cls is None:
        raise ConfigError(
            f"{place}: unknown {registry.name} type {name!r}",
            f"a registered {registry.name}",
            nearest(name, [*registry.module_dict, *compat.official_names(registry.name)]),
        )
    kwargs.update(extra)
    _check_keys(cls, kwargs, place)
    return cls(**kwargs)


def _check_keys(cls: Any, kwargs: Mapping[str, Any], place: str) -> None:
    """Raise ConfigError for keys that the constructor of `cls` does not take, or that it lacks."""
    parameters = inspect.signature(cls).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    required = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in variadic]
    missing = [n for n in required if n not in kwargs]
    if missing:
        raise ConfigError(
            f"{place} ({cls.__name__}): missing key {missing[0]!r}", f"keys {required}", "add it to the config"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in kwargs:
        if key not in parameters:
            raise ConfigError(
                f"{place} ({cls.__name__}): unknown key {key!r}",
                "one of " + ", ".join(parameters),
                nearest(key, parameters),
            )
