"""The registries, and one function that builds an object from its config dict.

Every ``dict(type='Name', ...)`` of a config goes through :func:`build`, so that an unknown type, an unknown key and a
value of the wrong type or out of range are reported the same way everywhere, with the dotted path of the key. Official
type names are translated by :mod:`mmseg.compat` on the way.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from mmseg import compat, values
from mmseg.errors import CheckpointError, ConfigError, SegError, nearest
from mmseg.mmengine_names import Registry

MODELS = Registry("model", locations=["mmseg.models"])
DATASETS = Registry("dataset", locations=["mmseg.datasets"])
TRANSFORMS = Registry("transform", locations=["mmseg.datasets.transforms"])
METRICS = Registry("metric", locations=["mmseg.evaluation"])

_LATE: dict[tuple[str, str], str] = {}  # (registry, type) -> the module that registers it when it is first built

_place: ContextVar[str] = ContextVar("place", default="")  # dotted path of what is being built


def register_late(registry: Registry, module: str, *names: str) -> None:
    """Let `module`, whose import is slow, register the types `names` when one of them is built."""
    _LATE.update({(registry.name, name): module for name in names})


def build(registry: Registry, cfg: Mapping[str, Any], where: str = "", **extra: Any) -> Any:
    """Build the object that `cfg` describes.

    Args:
        registry: where the type is looked up.
        cfg: ``dict(type='Name', key=value, ...)``; official type names are accepted.
        where: dotted path of `cfg` in the config file, for messages; inside of another object that is being built,
            relative to that one's.
        extra: further constructor arguments, which win over those of `cfg`.

    Raises:
        ConfigError: `cfg` has no type, the type is not known, a key is not an argument of it, or a value is not what
            the annotation of the argument says.
    """
    place = absolute(where or registry.name)
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise ConfigError(
            f"{place} = {values.shown(cfg)} has no 'type'",
            f"a dict with the type of a {registry.name}",
            f"write {place}=dict(type='...', ...)",
        )
    kwargs = compat.translate(registry.name, dict(cfg), place)
    cls = _find(registry, kwargs.pop("type"), place)
    kwargs = compat.effective([base.__name__ for base in _bases(cls)], kwargs, place, taken=_parameters(cls)[0])
    kwargs = check_arguments(cls, {key: kwargs[key] for key in kwargs if key not in extra}, place, extra)
    with _building(cls, place):
        return cls(**kwargs)


def check_arguments(
    cls: Any, kwargs: Mapping[str, Any], place: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`kwargs` and `extra` for the constructor of `cls`, with lists as tuples where it is annotated so.

    Args:
        cls: a class, or a function that makes an object.
        kwargs: values of a config.
        place: their dotted path.
        extra: further arguments, whose values are none of a user's and not looked at.

    Raises:
        ConfigError: a key that it does not take or that is missing, or a value that is not what its annotation says.
    """
    parameters, takes_any = _parameters(cls)
    title = getattr(cls, "__name__", cls)
    extra = extra or {}
    unknown = [key for key in (*kwargs, *extra) if key not in parameters]
    if unknown and not takes_any:
        known = [name for name in parameters if name not in extra]
        raise ConfigError(
            f"{place}.{unknown[0]}: unknown key {unknown[0]!r} of {title}",
            "one of " + (", ".join(known) or "no keys at all"),
            values.instead_of(unknown[0], known, place),
        )
    required = [name for name, parameter in parameters.items() if parameter.default is ... and not parameter.inherited]
    missing = [name for name in required if name not in kwargs and name not in extra]
    if missing:
        raise ConfigError(
            f"{place}: missing key {missing[0]!r} of {title}",
            f"keys {', '.join(required)}",
            f"set {place}.{missing[0]}",
        )
    checked = {}
    for key, value in kwargs.items():
        parameter = parameters.get(key, _UNKNOWN)
        checked[key] = values.check(value, parameter.adapter, f"{place}.{key}", parameter.default)
    return {**checked, **extra}


def takes(cls: Any, key: str) -> bool:
    """Whether the constructor of `cls` has an argument of this name."""
    named, takes_any = _parameters(cls)
    return key in named or takes_any


@dataclass(frozen=True)
class _Parameter:
    """An argument of a constructor."""

    adapter: TypeAdapter | None  # None: not annotated
    default: Any  # ... if there is none
    inherited: bool = False  # of a base class, to which the constructor may give it by itself


_UNKNOWN = _Parameter(None, ...)


@functools.cache
def _parameters(cls: Any) -> tuple[dict[str, _Parameter], bool]:
    """The named arguments of a constructor, and whether it takes any others.

    A constructor with ``**kwargs`` passes them on to its base class, whose arguments are then its own, too.
    """
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named: dict[str, _Parameter] = {}
    inherited = False
    for base in _bases(cls):
        constructor = vars(base).get("__init__") if inspect.isclass(base) else base
        if base is object:
            return named, False
        if constructor is None:
            continue
        parameters, annotations = inspect.signature(constructor).parameters, values.arguments_of(constructor)
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind not in variadic and name not in named:
                default = ... if parameter.default is parameter.empty else parameter.default
                named[name] = _Parameter(values.checker(annotations.get(name, Any)), default, inherited)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return named, False
        inherited = True
    return named, True


def _bases(cls: Any) -> list[Any]:
    """A class and its bases in the order in which attributes are looked up; a function by itself."""
    return list(inspect.getmro(cls)) if inspect.isclass(cls) else [cls]


def _find(registry: Registry, name: Any, place: str) -> Any:
    """The class of this name. Raises ConfigError if there is none."""
    found = _registered(registry, name) if isinstance(name, str) else name
    if callable(found):
        return found
    late = [name for owner, name in _LATE if owner == registry.name]
    known = [*registry.module_dict, *late, *compat.official_names(registry.name)]
    raise ConfigError(
        f"{place}: unknown {registry.name} type {values.shown(name)}",
        f"a registered {registry.name}; your own are registered by custom_imports",
        nearest(str(name), known),
    )


def _registered(registry: Registry, name: str) -> Any | None:
    """What is registered as `name`, with the package's name before it or not; None if there is nothing.

    Not ``registry.get``, which imports whatever a dotted name leads to ("os.system"), and would let the data in
    somebody's checkpoint choose what is called.
    """
    name = name.removeprefix("mmseg.")
    if (registry.name, name) in _LATE:
        importlib.import_module(_LATE[registry.name, name])
    registry.import_from_location()
    return registry.module_dict.get(name)


def class_of(registry: Registry, cfg: Any) -> Any | None:
    """The class that a config dict names, by our name or an official one, unbuilt; None if there is none."""
    named = isinstance(cfg, Mapping) and "type" in cfg
    kind = compat.translate(registry.name, dict(cfg))["type"] if named else None
    return _registered(registry, kind) if isinstance(kind, str) else None


def absolute(where: str) -> str:
    """The dotted path `where`, which may be relative to the object whose constructor is running."""
    outer = _place.get()
    if not outer or where == outer or where.startswith(f"{outer}."):
        return where
    return f"{outer}.{where}"


@contextmanager
def _building(cls: Any, place: str) -> Iterator[None]:
    """Names the place in whatever goes wrong in a constructor."""
    token = _place.set(place)
    try:
        yield
    except CheckpointError:
        raise  # about a file
    except SegError as error:
        if place in error.found:
            raise
        raise type(error)(f"{place}: {error.found}", error.expected, error.action) from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"{place} ({getattr(cls, '__name__', cls)}) cannot be made: {type(error).__name__}: {error}",
            "values that work together",
            f"correct the keys of {place}",
        ) from error
    finally:
        _place.reset(token)
