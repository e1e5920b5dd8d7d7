"""Which class the values of a mask stand for, sequence by sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmseg.errors import ConfigError, DataError, nearest
from mmseg.files import read_json
from mmseg.values import shown

EVERY = "*"  # stands for all sequences without an entry of their own
_VOID = 255

ClassMapEntry = str | Mapping[str, str]


class ClassMap:
    """Turns stored mask values into raw labels (0 ignored, class v - 1 otherwise).

    Args:
        entries: sequence name, or '*' for the others -> the class of all its objects, or a dict from mask value to
            class (255 is ignored unless it has one).
        background: class of mask value 0; None ignores it.

    Attributes:
        classes: names in label order: the background, then the others as they come.

    Raises:
        ConfigError: an entry that is neither.
    """

    def __init__(self, entries: Mapping[str, ClassMapEntry], background: str | None = "background") -> None:
        self.entries, self.background = dict(entries), background
        names = [background] if background else []
        for sequence, entry in self.entries.items():
            if not isinstance(entry, str | Mapping) or not _is_value_map(entry):
                raise ConfigError(
                    f"class map: {sequence!r}: {shown(entry)}",
                    "a class name, or a dict from mask values (0..255, each once) to class names",
                    "fix the class map",
                )
            names += [entry] if isinstance(entry, str) else entry.values()
        self.classes = list(dict.fromkeys(names))  # each once
        if not 1 <= len(self.classes) <= 254:
            raise ConfigError(f"class map with {len(self.classes)} classes", "1 to 254 classes", "fix the class map")

    def check_sequences(self, sequences: Sequence[str]) -> None:
        """Raise ConfigError for sequences without a class, and for entries without a sequence."""
        if EVERY not in self.entries:
            for name in sequences:
                if name not in self.entries:
                    raise ConfigError(
                        f"class map: no class for sequence {name!r}",
                        "one for every sequence",
                        f"add {name}=CLASS, or {EVERY}=CLASS for all others",
                    )
        for name in self.entries:
            if name != EVERY and name not in sequences:
                raise ConfigError(f"class map: no sequence {name!r}", "existing sequences", nearest(name, sequences))

    def table(self, sequence: str) -> np.ndarray:
        """The raw label of every mask value of a sequence: (256,) int16, -1 for values that must not occur."""
        table = np.full(256, -1, np.int16)
        entry = self.entries.get(sequence, self.entries.get(EVERY))
        if isinstance(entry, str):
            table[1:] = self._label(entry)
        else:
            table[_VOID] = 0
            for value, name in entry.items():
                table[int(value)] = self._label(name)
        if table[0] < 0:
            table[0] = self._label(self.background) if self.background else 0
        return table

    def convert(self, mask: np.ndarray, sequence: str, path: str | Path) -> np.ndarray:
        """Raw labels (H, W) uint8 of a stored mask (H, W) uint8. Raises DataError for values without a class."""
        labels = self.table(sequence)[mask]
        if (labels < 0).any():
            values = np.unique(mask[labels < 0]).tolist()
            raise DataError(
                f"{path}: mask values {values} without a class", "an entry for every value", "extend the class map"
            )
        return labels.astype(np.uint8)

    def _label(self, name: str) -> int:
        return self.classes.index(name) + 1


def read_class_map(arguments: Sequence[str]) -> dict[str, ClassMapEntry]:
    """Entries from the command line: JSON files and ``sequence=class`` pairs; later ones win.

    A JSON file holds ``{sequence: class}`` or ``{sequence: {mask value: class}}``; a plain ``{mask value: class}``, or
    the pair ``7=class``, holds for all sequences.

    Raises:
        ConfigError: a file that cannot be read, or an argument that is neither.
    """
    entries: dict[str, ClassMapEntry] = {}
    values: dict[str, str] = {}
    for argument in arguments:
        name, equals, label = argument.rpartition("=")
        found = {name: label} if equals and not Path(argument).is_file() else _read_file(argument)
        for key, entry in found.items():
            if key.isdecimal() and isinstance(entry, str):
                values[key] = entry
            else:
                entries[key] = entry
    return {EVERY: values, **entries} if values else entries


def _read_file(path: str) -> dict[str, ClassMapEntry]:
    try:
        found = read_json(path)
    except DataError as error:
        raise ConfigError(f"class map {error.found}", "a JSON file, or SEQUENCE=CLASS", error.action) from error
    if not isinstance(found, dict):
        raise ConfigError(f"class map {path}: {type(found).__name__}", "a JSON object", "fix the file")
    return found


def _is_value_map(entry: ClassMapEntry) -> bool:
    if isinstance(entry, str):
        return bool(entry)
    values = [int(k) if str(k).isdecimal() and len(str(k)) < 4 else -1 for k in entry]
    is_each_once = len(set(values)) == len(values)  # "7" and "07" are one value
    return is_each_once and all(0 <= v <= 255 for v in values) and all(isinstance(n, str) and n for n in entry.values())
