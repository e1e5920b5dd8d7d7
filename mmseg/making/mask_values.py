"""Which class the values, or colours, of a mask stand for, sequence by sequence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmseg.datasets.labels import look_up, sorted_codes
from mmseg.errors import ConfigError, DataError, nearest
from mmseg.files import read_json
from mmseg.images import read_colours, read_mask
from mmseg.values import shown
from mmseg.visualization.palette import default_palette

EVERY = "*"  # stands for all sequences, or values, without an entry of their own
VOID = "void"  # the class of pixels that are ignored
_VOID_VALUE = 255
_BLACK = "#000000"
_COLOUR = re.compile(r"#[0-9a-f]{6}")

ClassMapEntry = str | Mapping[str, str]


class ClassMap:
    """Turns stored masks into raw labels (0 ignored, class v - 1 otherwise).

    Args:
        entries: sequence name, or '*' for the others -> the class of all its objects (but values that are 'void' by the
            dict of '*'), or a dict from mask values to classes (255 is ignored unless it has one). In such a dict '*'
            stands for all values without an entry, but 0 and 255, and keys ``#rrggbb`` or ``r,g,b`` are colours of
            masks that are pictures. The class 'void' is ignored.
        background: class of mask value 0, and of black; None ignores it.

    Attributes:
        classes: names in label order: the background, then the others as they come.

    Raises:
        ConfigError: an entry that is neither.
    """

    def __init__(self, entries: Mapping[str, ClassMapEntry], background: str | None = "background") -> None:
        self.entries = {name: _normalised(name, entry) for name, entry in entries.items()}
        self.background = None if background == VOID else background
        names = [self.background] if self.background else []
        for entry in self.entries.values():
            names += [entry] if isinstance(entry, str) else entry.values()
        self.classes = [name for name in dict.fromkeys(names) if name != VOID]  # each once
        if not 1 <= len(self.classes) <= 254:
            raise ConfigError(f"class map with {len(self.classes)} classes", "1 to 254 classes", "fix the class map")

    @property
    def colours(self) -> dict[str, list[int]] | None:
        """Class -> RGB colour: the first one that masks have of it, or separated ones and a black background, which
        pictures leave as it is; None where there is neither a background nor a colour for every class."""
        found: dict[str, list[int]] = {}
        for entry in self.entries.values():
            for key, name in entry.items() if _of_colours(entry) else ():
                if key != EVERY and name != VOID:
                    found.setdefault(name, list(bytes.fromhex(key[1:])))
        if self.background and not found:
            found = dict(zip(self.classes[1:], default_palette(len(self.classes) - 1)))
        if self.background:
            found.setdefault(self.background, [0, 0, 0])
        return {name: found[name] for name in self.classes} if found.keys() >= set(self.classes) else None

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

    def read(self, path: str | Path, sequence: str) -> np.ndarray:
        """Raw labels (H, W) uint8 of a mask file of a sequence.

        Raises:
            DataError: it cannot be read, or holds values or colours without a class.
        """
        entry = self._entry(sequence)
        if not _of_colours(entry):
            return self._of_values(read_mask(path), sequence, path)
        picture = read_colours(path)
        given = {_BLACK: self.background or VOID, **entry}
        codes = {colour: self._label(name) for colour, name in given.items() if colour != EVERY}
        rgb = [tuple(bytes.fromhex(colour[1:])) for colour in codes]
        labels, unknown = look_up(picture, *sorted_codes(rgb, list(codes.values())))
        if unknown is not None:
            if EVERY not in entry:
                colour = bytes(picture[unknown][0]).hex()
                raise DataError(
                    f"{path}: colour #{colour} in {unknown.sum()} pixels without a class",
                    "an entry for every colour",
                    f"extend the class map: '#{colour}=CLASS', or '{EVERY}={VOID}' to ignore all others",
                )
            labels[unknown] = self._label(entry[EVERY])
        return labels

    def table(self, sequence: str) -> np.ndarray:
        """The raw label of every mask value of a sequence: (256,) int16, -1 for values that must not occur."""
        table = np.full(256, -1, np.int16)
        entry = self._entry(sequence)
        if isinstance(entry, str):
            table[1:] = self._label(entry)
            common = self.entries.get(EVERY)
            for value, name in common.items() if isinstance(common, Mapping) else ():
                if name == VOID and value.isdecimal():
                    table[int(value)] = 0
        else:
            if EVERY in entry:
                table[1:] = self._label(entry[EVERY])
            table[_VOID_VALUE] = 0
            for value, name in entry.items():
                if value != EVERY:
                    table[int(value)] = self._label(name)
        if table[0] < 0 or isinstance(entry, str):
            table[0] = self._label(self.background or VOID)
        return table

    def _of_values(self, mask: np.ndarray, sequence: str, path: str | Path) -> np.ndarray:
        labels = self.table(sequence)[mask]
        if (labels < 0).any():
            values = np.unique(mask[labels < 0]).tolist()
            raise DataError(
                f"{path}: mask values {values} without a class",
                "an entry for every value",
                f"extend the class map: {values[0]}=CLASS, or {values[0]}={VOID} to ignore it, or '{EVERY}={VOID}' for "
                "all others",
            )
        return labels.astype(np.uint8)

    def _entry(self, sequence: str) -> ClassMapEntry:
        return self.entries.get(sequence, self.entries.get(EVERY))

    def _label(self, name: str) -> int:
        return 0 if name == VOID else self.classes.index(name) + 1


def read_class_map(arguments: Sequence[str]) -> dict[str, ClassMapEntry]:
    """Entries from the command line: JSON files and ``sequence=class`` pairs; later ones win.

    A JSON file holds ``{sequence: class}`` or ``{sequence: {mask value: class}}``; a plain ``{mask value: class}``, or
    the pair ``7=class``, holds for all sequences, and ``*=class`` beside such for all other values.

    Raises:
        ConfigError: a file that cannot be read, or an argument that is neither.
    """
    entries: dict[str, ClassMapEntry] = {}
    values: dict[str, str] = {}
    for argument in arguments:
        name, equals, label = argument.rpartition("=")
        found = {name: label} if equals and not Path(argument).is_file() else _read_file(argument)
        for key, entry in found.items():
            if _is_value(key) and isinstance(entry, str):
                values[key] = entry
            else:
                entries[key] = entry
    if not values:
        return entries
    if isinstance(entries.get(EVERY), str):
        values[EVERY] = entries.pop(EVERY)
    return {EVERY: values, **entries}


def _read_file(path: str) -> dict[str, ClassMapEntry]:
    try:
        found = read_json(path)
    except DataError as error:
        raise ConfigError(f"class map {error.found}", "a JSON file, or SEQUENCE=CLASS", error.action) from error
    if not isinstance(found, dict):
        raise ConfigError(f"class map {path}: {type(found).__name__}", "a JSON object", "fix the file")
    return found


def _is_value(key: str) -> bool:
    """Whether a key stands for a value or a colour, and not for a sequence."""
    return key.isdecimal() or _colour(key) is not None


def _colour(key: str) -> str | None:
    """``#rrggbb`` of a colour written so or as ``r,g,b``; None if it is none."""
    if _COLOUR.fullmatch(key.lower()):
        return key.lower()
    parts = key.replace(" ", "").split(",")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,3}", part) and int(part) < 256 for part in parts):
        return None
    return "#" + bytes(map(int, parts)).hex()


def _of_colours(entry: ClassMapEntry) -> bool:
    return not isinstance(entry, str) and any(key.startswith("#") for key in entry)


def _normalised(sequence: str, entry: object) -> ClassMapEntry:
    """An entry whose values are plain decimals, or colours ``#rrggbb``. Raises ConfigError if it makes no sense."""
    found: ClassMapEntry | None = None
    if isinstance(entry, str):
        found = entry
    elif isinstance(entry, Mapping) and all(isinstance(name, str) and name for name in entry.values()):
        keys = [_plain_value(str(key)) for key in entry]
        rest = [key for key in keys if key != EVERY]
        is_one_kind = len({key is not None and key.startswith("#") for key in rest}) <= 1
        if None not in keys and len(set(keys)) == len(keys) and is_one_kind:  # "7" and "07" are one value
            found = dict(zip(keys, entry.values()))
    if found is None or found == "":
        raise ConfigError(
            f"class map: {sequence!r}: {shown(entry)}",
            "a class name, or a dict from mask values (0..255, each once), or from colours (#rrggbb), to class names",
            "fix the class map",
        )
    return found


def _plain_value(key: str) -> str | None:
    if key == EVERY or _colour(key) is not None:
        return EVERY if key == EVERY else _colour(key)
    is_value = re.fullmatch("[0-9]{1,3}", key) is not None and int(key) <= 255
    return str(int(key)) if is_value else None
