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
    missing = [name for name in required if name not in kwargs]
    if missing:
        raise ConfigError(
            f"{place} ({cls.__name__}): missing key {missing[0]!r}", f"keys {required}", "add it to the config"
        )
    unknown = [key for key in kwargs if key not in parameters]
    if unknown and not takes_any:
        raise ConfigError(
            f"{place} ({cls.__name__}): unknown key {unknown[0]!r}",
            "one of " + ", ".join(parameters),
            nearest(unknown[0], parameters),
        )


def _parameters(cls: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named arguments of a constructor, and whether it takes any others.

    A constructor with ``**kwargs`` passes them on to its base class, whose arguments are then its own, too.
    """
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else [cls]:
        constructor = vars(base).get("__init__") if inspect.isclass(base) else base
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind not in variadic:
                named.setdefault(name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return named, False
    return named, True
