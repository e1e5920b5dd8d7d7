"""Reading what trainings wrote about themselves: ``<time>.log.json`` of a work folder, or of mmcv's runner."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmseg.engine.monitor import is_better_when_lower
from mmseg.errors import ConfigError, DataError, nearest
from mmseg.files import read_bytes

SUFFIX = ".log.json"
_TIMES = ("time", "data_time", "memory")
_NO_CURVES = ("mode", "iter", "epoch")


@dataclass
class RunLog:
    """What a training wrote, oldest first.

    Attributes:
        name: of the run.
        train, val: entries by what they are about; each has ``iter``, the number of finished iterations.
        start: iterations that were finished before the first entry.
    """

    name: str
    train: list[dict[str, Any]] = field(default_factory=list)
    val: list[dict[str, Any]] = field(default_factory=list)
    start: int = 0

    @property
    def keys(self) -> list[str]:
        """Names of the numbers that it has curves of: scores, losses, the rest."""
        scores, others = (list(dict.fromkeys(k for e in part for k in e)) for part in (self.val, self.train))
        losses = sorted(others, key=lambda name: (name != "loss", "loss" not in name, name in _TIMES))
        return [name for name in dict.fromkeys([*scores, *losses]) if name not in _NO_CURVES]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations and values of a number, those that are undefined left out; of the training if both have it."""
        for entries in (self.train, self.val):
            points = [(entry["iter"], entry[key]) for entry in entries if _is_number(entry.get(key))]
            if points:
                return [iteration for iteration, _ in points], [float(value) for _, value in points]
        return [], []

    def join(self, later: RunLog) -> None:
        """Go on with what a resumed run wrote; what this one had done after its start is forgotten."""
        for own, more in ((self.train, later.train), (self.val, later.val)):
            own[:] = [entry for entry in own if entry["iter"] <= later.start]
            own += more


def read_run(path: str | Path, name: str | None = None) -> RunLog:
    """The log of a run: a ``.log.json`` file, or all of a work folder joined in the order of time.

    Raises:
        DataError: there is none, or a line in it is damaged (the last one may be cut off: the run may go on).
    """
    path = Path(path)
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no log in it", f"a work folder with <time>{SUFFIX}", "name the folder of a training")
    first, *others = [_read_file(file, name or str(path)) for file in files]
    for other in others:
        first.join(other)
    if not (first.train or first.val):
        raise DataError(f"{path}: nothing logged", "a training that has written a line", "wait for it, or use another")
    return first


def _read_file(path: Path, name: str) -> RunLog:
    log = RunLog(name)
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("iter", 0), int):
                raise ValueError("no entry of a log")
        except ValueError as error:
            if number == len(lines) and number > 1:
                break  # cut off, or being written
            raise DataError(
                f"{path}, line {number}: {error}", "one JSON object a line, as a training writes it", "use another file"
            ) from error
        if entry.get("mode") in ("train", "val") and "iter" in entry:
            (log.train if entry["mode"] == "train" else log.val).append(entry)
        else:
            log.start = entry["start"] if isinstance(entry.get("start"), int) else log.start
    return log


def read_runs(arguments: Sequence[str]) -> list[RunLog]:
    """The logs of several runs, each a path, or ``NAME=PATH``. For a path that exists ``=`` is a part of it.

    Raises:
        ConfigError: two have one name.
        DataError: see :func:`read_run`.
    """
    runs = []
    for text in arguments:
        name, equals, path = text.partition("=")
        is_path = not equals or Path(text).exists()
        runs.append(read_run(text) if is_path else read_run(path, name or None))
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{names.count(name)} runs are called {name}", "a name for each", "give them as NAME=LOG")
    return runs


def chosen_keys(runs: Sequence[RunLog], wanted: Sequence[str] | None) -> list[str]:
    """The numbers to look at: those that are `wanted`, or the loss and the first score of each run.

    Raises:
        ConfigError: no run has one of them.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.keys))
    for key in wanted or ():
        if key not in known:
            raise ConfigError(f"--keys {key}: no such number in the logs", "one that is logged", nearest(key, known))
    if wanted:
        return list(wanted)
    firsts = [next((key for key in run.val[0] if key not in _NO_CURVES), None) for run in runs if run.val]
    return list(dict.fromkeys(key for key in ("loss", *firsts) if key in known)) or known[:1]


def summary(run: RunLog, keys: Sequence[str]) -> dict[str, float | None]:
    """Numbers of a run for a table: its last iteration, seconds of an iteration, and the last and best of `keys`."""
    done = max(entry["iter"] for entry in [*run.train, *run.val])
    seconds = [entry["time"] for entry in run.train if _is_number(entry.get("time"))]
    found: dict[str, float | None] = {"iterations": done, "s/iter": sum(seconds) / len(seconds) if seconds else None}
    for key in keys:
        iterations, values = run.curve(key)
        is_low = "loss" in key or is_better_when_lower(key)
        found[key] = values[-1] if values else None
        best = (min if is_low else max)(values, default=None)
        found[f"{'lowest' if is_low else 'best'} {key}"] = best
        found[f"at iteration ({key})"] = None if best is None else iterations[values.index(best)]
    return found


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of every value and those before it, `window` of them at most."""
    parts = [values[max(0, i + 1 - window) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def curves(runs: Sequence[RunLog], key: str, window: int = 1) -> Mapping[str, tuple[list[int], list[float]]]:
    """Run -> iterations and values of a number, smoothed; runs without it are left out."""
    found = {run.name: run.curve(key) for run in runs}
    return {name: (x, smoothed(y, window)) for name, (x, y) in found.items() if y}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
