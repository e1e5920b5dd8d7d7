"""Types and ranges of config values: what an annotation says, a value must be.

One mechanism checks every value of a config: the arguments of everything that is built from a ``dict(type=...)``
against the annotations of its constructor (:mod:`mmseg.registry`), and the sections that the engine reads against those
of :mod:`mmseg.sections`; and the arguments of functions that other programs call (:func:`checked`). Pydantic does the
comparing; here is what is strict about it, and how its findings are told.

Strict are the scalars: True is no integer, ``'3'`` is no number, a fraction is no integer, nan is no number. An integer
may stand where a fraction is expected, and a list where a tuple is (it becomes one).
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pydantic
from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, SchemaError
from typing_extensions import TypedDict, is_typeddict

from mmseg.errors import ConfigError, nearest

Function = TypeVar("Function", bound=Callable[..., Any])
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]  # a probability, a ratio
Byte = Annotated[int, Ge(0), Le(255)]  # a label, a part of a colour
Palette = Sequence[Annotated[Sequence[Byte], Len(3, 3)]]  # RGB, in label order


def _ascending(values: Sequence[float]) -> Sequence[float]:
    if list(values) != sorted(values):
        raise ValueError("numbers in ascending order")
    return values


def _rising(values: Sequence[float]) -> Sequence[float]:
    if list(values) != sorted(set(values)):
        raise ValueError("different numbers in ascending order")
    return values


Range = Annotated[Sequence[float], Len(2, 2), AfterValidator(_ascending)]  # (lowest, highest)
PositiveRange = Annotated[Sequence[PositiveFloat], Len(2, 2), AfterValidator(_ascending)]
Dilation = Annotated[
    Sequence[Annotated[int, Le(0)]], AfterValidator(_rising)
]  # of the references, oldest first: [-9, -6, -3]
Channels = Annotated[Sequence[PositiveInt], Len(4, 4)]  # of the maps of strides 4, 8, 16, 32
NumClasses = Annotated[int, Gt(0), Le(255)]  # label maps are 8-bit, and 255 is no class
Size = Annotated[Sequence[PositiveInt], Len(2, 2)]  # (height, width), or the two sides of a scale


def _not_by_epoch(by_epoch: bool) -> bool:
    if by_epoch:
        raise ValueError("False: everything here counts iterations, as runner.max_iters does")
    return by_epoch


ByEpoch = Annotated[bool, AfterValidator(_not_by_epoch)]
Text = Annotated[str, Len(1)]


class Section(pydantic.BaseModel):
    """A dict with these keys and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_keys(cls, section: Any) -> Any:
        is_open = cls.model_config["extra"] == "allow"
        return section if is_open else known_keys(cls.model_fields, section)


class Keys(TypedDict):
    """Base of dicts whose keys are known: a subclass names them with their types, and no others are taken."""

    __pydantic_config__ = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # type: ignore[misc]


_CONTAINERS = (list, tuple, dict, set, frozenset, Sequence, Mapping)
_EXPECTED = {  # pydantic's kinds of errors in our words
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "a text",
    "path_type": "a path",
    "dict_type": "a dict",
    "mapping_type": "a dict",
    "model_type": "a dict",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_str": "a list",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "{min_length} values or more",
    "string_too_short": "a text that is not empty",
    "union_tag_invalid": "a dict whose type is one of {expected_tags}",
    "union_tag_not_found": "a dict with a type",
    "extra_forbidden": "no such key",
    "too_long": "{max_length} values at most",
}
_shorten = reprlib.Repr()
_shorten.maxlevel = 2
_shorten.maxdict = _shorten.maxlist = _shorten.maxtuple = 6
_shorten.maxstring = _shorten.maxother = 120


def checker(annotation: Any) -> TypeAdapter | None:
    """What compares values with an annotation; None where the annotation says nothing that could be compared."""
    if annotation is Any or annotation is None:
        return None
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    try:
        return TypeAdapter(_with_strict_scalars(annotation), config=config)
    except (pydantic.errors.PydanticUserError, SchemaError, TypeError):
        return None  # a protocol, a type variable ...: nothing that a config could hold


def check(value: Any, adapter: TypeAdapter | None, place: str, default: Any = ...) -> Any:
    """`value` if it is what `adapter` expects, with lists turned into tuples where it says so.

    Args:
        value: from a config.
        adapter: from :func:`checker`.
        place: dotted path of the value, for messages.
        default: what holds if the key is left out, for messages; ... for nothing.

    Raises:
        ConfigError: another type, or out of range.
    """
    return value if adapter is None else _as_given(value, parse(value, adapter, place, default))


def parse(value: Any, adapter: TypeAdapter, place: str, default: Any = ...) -> Any:
    """What `adapter` makes of `value`. Args and errors: see :func:`check`."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _explained(error, value, place, default) from None


def shown(value: Any) -> str:
    """`value` as it stands in a message: its repr, shortened."""
    return _shorten.repr(value)


def _with_strict_scalars(annotation: Any) -> Any:
    """`annotation` with int, float, str and bool, at any depth, meaning nothing but these."""
    if annotation in (int, str, bool):
        return Annotated[annotation, pydantic.Strict()]
    if annotation is float:
        return Annotated[float, pydantic.Strict(), pydantic.AllowInfNan(False)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if is_typeddict(annotation):
        return Annotated[annotation, BeforeValidator(functools.partial(known_keys, annotation.__annotations__))]
    if origin is Annotated:
        return Annotated[(_with_strict_scalars(arguments[0]), *annotation.__metadata__)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_with_strict_scalars(argument) for argument in arguments)]  # noqa: UP007
    if origin in _CONTAINERS and arguments:
        return origin[tuple(_with_strict_scalars(argument) for argument in arguments)]
    return Any if origin is not None and origin is not Literal else annotation


def known_keys(known: Iterable[str], value: Any) -> Any:
    """`value`; raises pydantic's kind of error if it is a dict with other keys than the known ones."""
    for key in value if isinstance(value, Mapping) else ():
        if key not in known:
            raise PydanticCustomError("unknown_key", "unknown key", {"key": str(key), "known": " ".join(known)})
    return value


def instead_of(key: str, known: Iterable[str], place: str) -> str:
    """What to do about an unknown key of a dict at `place`: the nearest one, or one of a ``_base_`` file goes."""
    action = nearest(key, known)
    if action.startswith("did you mean"):
        return action
    return f"remove it; if a _base_ file has it, say {place}._delete_=True (in a file: _delete_=True in this dict)"


def _as_given(value: Any, checked: Any) -> Any:
    """`value` with the sequences of `checked`: what was given keeps its type, but a list may have become a tuple."""
    if isinstance(value, list | tuple) and isinstance(checked, list | tuple):
        return type(checked)(_as_given(*pair) for pair in zip(value, checked, strict=True))
    return value


def _explained(error: ValidationError, value: Any, place: str, default: Any) -> ConfigError:
    """The first of pydantic's findings, as an error of ours; the alternatives of a union are told together."""
    found: dict[tuple[str | int, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_path(detail["loc"], value), []).append(detail)
    path = max(found, key=len)
    details, wrong, where = found[path], value, ".".join([place, *map(str, path)])
    for part in path:
        wrong = wrong[part]
    first = details[0]
    if first["type"] == "missing":
        name = str(first["loc"][-1])
        return ConfigError(f"{where}.{name} is missing", "a value for this key", f"set {where}.{name}")
    if first["type"] == "unknown_key":
        key, known = first["ctx"]["key"], first["ctx"]["known"].split()
        return ConfigError(
            f"{where}.{key}: unknown key {key!r}", f"one of {', '.join(known)}", instead_of(key, known, where)
        )
    expected = " or ".join(dict.fromkeys(_expectation(detail) for detail in details))
    action = f"correct {where}"
    if default is not ... and not path:
        action += f", or leave it out for {shown(default)}"
    return ConfigError(f"{where} = {shown(wrong)}", expected, action)


def _path(location: Iterable[str | int], value: Any) -> tuple[str | int, ...]:
    """The keys and indices among the parts of pydantic's location; its other parts name alternatives of a union."""
    path: list[str | int] = []
    for part in location:
        is_key = isinstance(value, Mapping) and part in value
        is_index = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if is_key or is_index:
            path.append(part)
            value = value[part]
    return tuple(path)


def _expectation(detail: Mapping[str, Any]) -> str:
    """What would have been right, in words."""
    words, context = _EXPECTED.get(detail["type"]), detail.get("ctx", {})
    if detail["type"] == "is_instance_of" and context["class"] in ("Sequence", "Mapping"):
        words = {"Sequence": "a list", "Mapping": "a dict"}[context["class"]]
    if words is not None:
        return words.format(**context)
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's arguments; empty where they cannot be resolved."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def checked(function: Function) -> Function:
    """`function`, whose arguments are compared with their annotations at each call, as the values of a config are.

    Raises:
        ConfigError: a call with an argument of another type, or out of range, or with one that it does not take.
    """
    signature = inspect.signature(function)
    fixed = {n: p for n, p in signature.parameters.items() if n != "self" and p.kind not in _VARIADIC}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    title = function.__qualname__.removesuffix(".__init__")

    @functools.cache
    def adapters() -> dict[str, TypeAdapter | None]:
        annotations = arguments_of(function)
        return {name: checker(annotations.get(name, Any)) for name in fixed}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not takes_any and (unknown := [name for name in kwargs if name not in fixed and name != "self"]):
            raise ConfigError(
                f"{title}: unknown argument {unknown[0]!r}", f"some of {', '.join(fixed)}", nearest(unknown[0], fixed)
            )
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in fixed:
                default = fixed[name].default
                check(value, adapters()[name], name, ... if default is inspect.Parameter.empty else default)
        return function(*args, **kwargs)

    return call
