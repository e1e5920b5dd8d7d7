"""What stands in a report of a test: the numbers of evaluators, arranged as tables, bars, curves and a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from mmseg.evaluation import Evaluator
from mmseg.evaluation.frame_scores import FrameScores, WorstFrames
from mmseg.evaluation.tables import jsonable
from mmseg.version import __version__

_MOST_POINTS = 100_000  # of all curves of an evaluator together
_DIGITS = 4  # of the scores of frames
_TABLES = {
    "per_class": ("Classes", "class"),
    "per_video": ("Videos", "video"),
    "per_sequence": ("Videos", "video"),
    "per_object": ("Objects", "object"),
}


def report_content(
    facts: Mapping[str, Any],
    evaluators: Sequence[Evaluator],
    frames: WorstFrames,
    table: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    ranking: int | None = None,
) -> dict[str, Any]:
    """All of a report, for :func:`mmseg.visualization.report.render_report`.

    Args:
        facts: of the run: config, checkpoint, data ...; None leaves one out.
        evaluators: with all frames.
        frames: the worst ones; a :class:`ShownFrame` is kept of each.
        table: (256, 3) RGB colours of the labels; None: they are grey maps.
        class_names: names in label order; None: labels are numbers of objects.
        notes: what else is to be said.
        ranking: place of the evaluator that ranks `frames`; None: the first one with scores of frames.
    """
    reports = [evaluator.report() for evaluator in evaluators]
    scores = [frame_scores_of(*pair) for pair in zip(evaluators, reports)]
    rank = next((index for index, own in enumerate(scores) if own), 0) if ranking is None else ranking
    curve = next((name for own in scores[rank].values() for name in own.curves), "")
    counts = next((report["counts"] for report in reports if report.get("counts")), {})
    about = {
        **facts,
        **{name: counts[name] for name in ("videos", "frames", "objects") if name in counts},
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "mmseg": __version__,
    }
    rows = [{"video": f.video, "score": round(f.score, _DIGITS), **f.shown.embedded(table)} for f in frames.sorted()]
    present = {label for row in rows for label in row["present"]}
    return jsonable(
        {
            "facts": [[name, value] for name, value in about.items() if value is not None],
            "notes": list(notes),
            "parts": [_part(number, *part, table) for number, part in enumerate(zip(evaluators, reports, scores))],
            "frames": {
                "score": curve,
                "percent": evaluators[rank].in_percent,
                "stride": frames.stride,
                "legend": _legend(present, table, class_names),
                "rows": rows,
            },
        }
    )


def frame_scores_of(evaluator: Evaluator, report: Mapping[str, Any]) -> dict[str, FrameScores]:
    """The scores of all frames, by video in the order of the report; nothing where an evaluator has none."""
    names = report.get("per_video") or report.get("per_sequence") or ()
    found = {name: evaluator.frame_scores(name) for name in names}
    return {name: own for name, own in found.items() if own is not None}


def _part(
    number: int,
    evaluator: Evaluator,
    report: Mapping[str, Any],
    scores: Mapping[str, FrameScores],
    table: np.ndarray | None,
) -> dict[str, Any]:
    """The part of one evaluator."""
    rules = report.get("protocol") or {}
    links = {name: f"video-{number}-{place}" for place, name in enumerate(scores)}
    curves, thinned = _curves(scores, links)
    classes = report.get("per_class") or ()
    colours = [_colour(table, label) for label in range(len(classes))] if table is not None else None
    return {
        "name": rules.get("protocol", type(evaluator).__name__),
        "percent": evaluator.in_percent,
        "scores": [[name, report[name]] for name in evaluator.score_names if name in report],
        "rules": [[name, str(text)] for name, text in rules.items()],
        "bars": _bars(classes, colours),
        "confusion": _confusion(evaluator),
        "curves": curves,
        "thinned": thinned,
        "tables": [
            _table(title, first, report[key], colours if key == "per_class" else None, links)
            for key, (title, first) in _TABLES.items()
            if report.get(key)
        ],
    }


def _bars(classes: Sequence[Mapping[str, Any]], colours: Sequence[str] | None) -> list[list[Any]]:
    """Name, IoU and colour of the classes that occur, the best first."""
    rows = [[row["class"], row["IoU"], colours and colours[k]] for k, row in enumerate(classes)]
    return sorted((row for row in rows if row[1] is not None), key=lambda row: -row[1])


def _confusion(evaluator: Any) -> dict[str, Any] | None:
    """The confusion matrix of the classes that occur, if the evaluator has one; cells without pixels left out."""
    if not hasattr(evaluator, "confusion"):
        return None
    counts = evaluator.confusion()
    present = np.flatnonzero(counts.any(axis=0) | counts.any(axis=1))
    counts = counts[np.ix_(present, present)]
    cells = [[int(row), int(column), int(counts[row, column])] for row, column in zip(*counts.nonzero())]
    return {"names": [str(evaluator.class_names[c]) for c in present], "cells": cells} if cells else None


def _curves(scores: Mapping[str, FrameScores], links: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """The curves of all videos, the worst first, and of how many frames a point is the lowest."""
    points = sum(len(own.numbers) * len(own.curves) for own in scores.values())
    step = max(1, -(-points // _MOST_POINTS))
    curves = [
        {
            "id": links[name],
            "video": name,
            "numbers": list(own.numbers)[::step],
            "curves": {curve: _lowest(values, step) for curve, values in own.curves.items()},
        }
        for name, own in scores.items()
    ]
    means = {name: _mean(own.ranking) for name, own in scores.items()}
    return sorted(curves, key=lambda curve: means[curve["video"]]), step


def _lowest(values: Sequence[float], step: int) -> list[float]:
    values = np.asarray(values, np.float64)
    filled = np.pad(values, (0, -len(values) % step), constant_values=np.nan).reshape(-1, step)
    return np.round(np.fmin.reduce(filled, axis=1), _DIGITS).tolist()


def _mean(values: Sequence[float]) -> float:
    values = np.asarray(values, np.float64)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else 2.0  # after all others


def _table(
    title: str, first: str, rows: Any, colours: Sequence[str] | None, links: Mapping[str, str]
) -> dict[str, Any]:
    """A table of rows by name, or of rows that hold their name."""
    rows = [{first: name, **row} for name, row in rows.items()] if isinstance(rows, Mapping) else rows
    flat = [dict(_flattened(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: [row.get(name) for row in flat] for name in names}
    return {
        "title": title,
        "columns": [{"name": name, "kind": _kind(name, values)} for name, values in columns.items()],
        "rows": [
            ["yes" if value is True else "no" if value is False else value for value in row]
            for row in zip(*columns.values())
        ],
        "colours": colours,
        "links": [links.get(name) for name in columns[first]],
    }


def _flattened(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """``J: {mean: ...}`` as ``J-Mean``."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}-{inner.title()}", number) for inner, number in value.items())
        else:
            yield name, value


def _kind(name: str, values: Sequence[Any]) -> str:
    """What the values of a column are: text, count, score (0..1, drawn as a bar) or signed, as a decay is."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, (str, bool)) for value in known):
        return "text"
    if known and all(isinstance(value, int) for value in known):
        return "count"
    return "score" if all(0 <= value <= 1 for value in known) and not name.endswith("Decay") else "signed"


def _legend(labels: Iterable[int], table: np.ndarray | None, names: Sequence[str] | None) -> dict[int, list[str]]:
    """Name and colour of the labels that have a colour."""
    if table is None:
        return {}
    known = [label for label in labels if label < (255 if names is None else len(names)) and table[label].any()]
    return {k: [f"object {k}" if names is None else str(names[k]), _colour(table, k)] for k in known}


def _colour(table: np.ndarray, label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*map(int, table[label]))
