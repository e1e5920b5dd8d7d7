"""Class names of a data set: given in the config, lying beside the data, or those its type is known for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmseg.errors import ConfigError, DataError
from mmseg.files import read_json
from mmseg.values import shown

CLASSES_FILE = "classes.json"
MAX_CLASSES = 254  # labels are 8-bit, 255 is ignored, and raw labels are one higher

Palette = list[list[int]]


def read_classes_file(data_root: str | Path) -> tuple[tuple[str, ...], Palette | None] | None:
    """The names in label order, and their colours if it has any, of ``<data_root>/classes.json``; None without it.

    It is a list of names, or ``{name: [red, green, blue], ...}``.

    Raises:
        DataError: the file is neither.
    """
    path = Path(data_root) / CLASSES_FILE
    if not os.path.lexists(path):
        return None
    found = read_json(path)
    colours = list(found.values()) if isinstance(found, dict) else None
    names = list(found) if isinstance(found, dict) else found
    fault = _fault(names) or (colours is not None and not all(map(_is_colour, colours)) and "a value that is no colour")
    if fault:
        raise DataError(
            f"{path}: {fault}",
            "a JSON list of class names in label order, or an object of names and [red, green, blue] from 0 to 255",
            "fix the file",
        )
    return tuple(names), colours


def _is_colour(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and all(type(x) is int and 0 <= x <= 255 for x in entry)


def _of_roots(roots: Sequence[str | Path]) -> tuple[tuple[str, ...] | None, Palette | None]:
    """Names and colours of the ``classes.json`` below several roots, which must be the same where they are."""
    found = {str(root): entry for root in roots if (entry := read_classes_file(root)) is not None}
    if not found:
        return None, None
    (first, (names, colours)), *others = found.items()
    for root, (other, other_colours) in others:
        if other != names or other_colours != colours:
            raise DataError(
                f"{CLASSES_FILE} of {first} and of {root}: "
                + (first_difference(names, other, first, root) or "other colours"),
                "the same classes in the same order and colours",
                "make them agree, or give the data set its `classes` and palette",
            )
    return names, colours


def resolve_classes(
    roots: Sequence[str | Path],
    classes: Sequence[str] | None,
    palette: Sequence[Sequence[int]] | None,
    num_classes: int | None,
    default: tuple[tuple[str, ...], Palette],
) -> tuple[tuple[str, ...], Palette | None]:
    """Names and colours: from the config, else from ``classes.json``, else the `default` of the data set's type.

    `roots` are the folders in which ``classes.json`` may be. A data set with names of its own and no colours gets None
    for them. With `num_classes` alone, and names from
    nowhere else, the classes are numbered.

    Raises:
        ConfigError: names, colours and `num_classes` do not agree.
        DataError: ``classes.json`` is damaged.
    """
    if classes is not None and (fault := _fault(classes)):
        raise ConfigError(f"classes: {fault}", "a list of class names in label order", "fix the list")
    in_file, colours_in_file = _of_roots(roots) if classes is None or palette is None else (None, None)
    names = in_file if classes is None else tuple(classes)
    if palette is None and names == in_file:
        palette = colours_in_file
    if names is None:
        if num_classes is None or num_classes == len(default[0]):
            names = default[0]
        else:
            names = tuple(f"class_{label}" for label in range(num_classes))
    if num_classes is not None and num_classes != len(names):
        raise ConfigError(f"num_classes={num_classes} with {len(names)} class names", "the same number", "fix one")
    if palette is None:
        return names, default[1] if names == default[0] else None
    colours = [list(colour) for colour in palette]
    if len(colours) != len(names):
        raise ConfigError(
            f"palette of {len(colours)} colours for {len(names)} classes", "one RGB colour for each class", "fix it"
        )
    return names, colours


def first_difference(
    names: Sequence[str] | None, others: Sequence[str] | None, here: str = "one", there: str = "the other"
) -> str:
    """Where two lists of class names, found `here` and `there`, differ first, in words; "" if they are the same."""
    if names is None or others is None:
        return "" if names is others else f"no classes in {here if names is None else there}"
    if len(names) != len(others):
        return f"{len(names)} in {here}, {len(others)} in {there}"
    for label, (name, other) in enumerate(zip(names, others)):
        if name != other:
            return f"class {label} is {name!r} in {here} and {other!r} in {there}"
    return ""


def _fault(names: object) -> str | None:
    """What is wrong with a list of class names, if anything."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        return f"{shown(names)} is no list of names"
    if not 1 <= len(names) <= MAX_CLASSES:
        return f"{len(names)} names (1 to {MAX_CLASSES} are possible)"
    if not all(name.strip() and name.isprintable() for name in names):
        return "an empty name, or one with control characters"
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"{twice[0]!r} stands in the list more than once" if twice else None
