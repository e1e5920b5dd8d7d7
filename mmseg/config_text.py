"""A config as Python text, laid out for reading (mmengine's goes through a formatter, which takes half a second)."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from mmseg.mmengine_names import Config

_WIDTH = 120


def config_text(config: Config) -> str:
    """A file that makes the config, as far as it holds what Python can write: ``name = value`` line by line."""
    entries = sorted(config.to_dict().items())
    return "".join(f"{name} = {value_text(value, used=len(name) + 3)}\n" for name, value in entries)


def value_text(value: Any, indent: int = 0, used: int = 0) -> str:
    """Python that makes a value, on one line if it fits.

    Args:
        indent: of the line that it begins on.
        used: characters that stand before and after it on that line.
    """
    flat = _on_one_line(value)
    if not isinstance(value, Mapping | list | tuple) or not value or indent + used + len(flat) <= _WIDTH:
        return flat
    opening, closing = _brackets(value)
    pad = " " * (indent + 4)
    lines = (f"{pad}{name}{value_text(part, indent + 4, len(name) + 1)},\n" for name, part in _parts(value))
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _on_one_line(value: Any) -> str:
    if not isinstance(value, Mapping | list | tuple):
        return repr(value)
    opening, closing = _brackets(value)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return f"{opening}{', '.join(name + _on_one_line(part) for name, part in _parts(value))}{comma}{closing}"


def _brackets(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ("dict(", ")") if _is_call(value) else ("{", "}")
    return ("(", ")") if isinstance(value, tuple) else ("[", "]")


def _parts(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """What stands before each part of a value, and the part."""
    if not isinstance(value, Mapping):
        yield from (("", part) for part in value)
        return
    for key in sorted(value, key=str):
        yield (f"{key}=" if _is_call(value) else f"{key!r}: "), value[key]


def _is_call(value: Mapping[Any, Any]) -> bool:
    """Whether a dict can be written as ``dict(name=value)``."""
    return all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
