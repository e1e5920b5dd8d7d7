"""Errors that a user can cause, each with what was found, what was expected and what to do.

They are raised once, where the fault is known. The command-line tools print the message without a
traceback (:func:`mmseg.apis.cli.run`); programs that import the package catch :class:`SegError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegError(Exception):
    """Base of all errors that are the input's fault and not the program's.

    Args:
        found: what is wrong, with the path, key or shape that it was found at.
        expected: what would have been right.
        action: what the user can do about it.

    Attributes:
        rank: of several processes that raise it together, the one that prints it; None: whoever meets it.
        status: exit status of a program that it ends. 2: it would be met again if nothing is changed.
    """

    rank: int | None = None
    status = 2

    def __init__(self, found: str, expected: str | None = None, action: str | None = None) -> None:
        self.found, self.expected, self.action = found, expected, action
        super().__init__(found, expected, action)

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.action:
            lines.append(f"  what to do: {self.action}")
        return "\n".join(lines)


class ConfigError(SegError):
    """A config file, a ``--options`` entry or a constructor argument that cannot work."""


class DataError(SegError):
    """A file or folder of a data set that is missing, damaged or does not fit."""


class DeadWorkerError(DataError):
    """A process that loads data has been killed: the next start of the program may do well."""

    status = 1


class CheckpointError(SegError):
    """A checkpoint that is missing, truncated, of another model or unsafe to read."""


class WriteError(SegError):
    """A file or folder that cannot be written: full or read-only disk, no permission, something in the way."""


class OtherProcessError(SegError):
    """Another process of the run has failed or gone; it, or its launcher, says why."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'?"`` for the known name closest to `name`, else the list of known names."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known names: " + (", ".join(names) if names else "none")
