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
    parameters, takes_any = _parameters(cls)
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [n for n in required if n not in kwargs]
    if missing:
        raise ConfigError(
            f"{place} ({cls.__name__}): missing key {missing[0]!r}", f"keys {required}", "add it to the config"
        )
    for key in kwargs:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"{place} ({cls.__name__}): unknown key {key!r}",
                "one of " + ", ".join(parameters),
                nearest(key, parameters),
            )


def _parameters(cls: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a constructor, and whether it takes any other key as well.

    By convention ``**kwargs`` of a class passes keys on to its base, whose arguments count too; a ``**`` of any other
    name, or of a function, takes everything.
    """
    constructors = [c.__init__ for c in cls.__mro__ if "__init__" in vars(c)] if inspect.isclass(cls) else [cls]
    named: dict[str, inspect.Parameter] = {}
    for constructor in constructors:
        passes_on = False
        for name, parameter in inspect.signature(constructor).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
                if name != "kwargs" or not inspect.isclass(cls):
                    return named, True
            elif parameter.kind is not parameter.VAR_POSITIONAL and name != "self":
                named.setdefault(name, parameter)
        if not passes_on:
            return named, False
    return named, False
