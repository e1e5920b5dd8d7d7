"""What ``tools/benchmark.py`` prints of its measurements: tables, sentences, and the picture of how costs grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.engine.benchmark_job import Row
from mmseg.evaluation.tables import text_table
from mmseg.visualization.plots import plot_curves

_MIB = 2**20
_GROWTH = {"frames per second": lambda row: 1 / row["seconds"], "peak MiB": lambda row: row["peak_memory"] / _MIB}


def overview_table(rows: Sequence[Row]) -> str:
    """One line per measurement; the frame rate of a stream with and without reading and decoding the frames."""
    header = ["config", "what", "formulation", "precision", "ms", "1/s", "1/s, frames decoded", "peak MiB"]
    lines = []
    for row in rows:
        seconds, read, peak = row["seconds"], row["stages"].get("read", 0.0), row["peak_memory"] / _MIB
        lines.append(
            [
                Path(row["config"]).stem, row["what"], row["formulation"], row["precision"], f"{1000 * seconds:.1f}",
                f"{1 / seconds:.2f}", f"{1 / (seconds - read):.2f}" if read else "-", f"{peak:.0f}",
            ]
        )  # fmt: skip
    return f"{text_table(header, lines)}\n\n{rows[0]['device']}"


def short_name(config: str) -> str:
    """A config file in few words: its folder, which often names the system, and its own name."""
    path = Path(config)
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def growth_table(rows: Sequence[Row]) -> str:
    """One line per measurement, in the order of the axes."""
    header = ["what grows", "config", "value", "frames/s", "ms", "peak MiB"]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    lines = [
        [
            row["axis"], short_name(row["config"]), str(row["value"]), f"{1 / row['seconds']:.2f}",
            f"{1000 * row['seconds']:.0f}", f"{row['peak_memory'] / _MIB:.0f}",
        ]
        for row in sorted(rows, key=lambda row: axes.index(row["axis"]))
    ]  # fmt: skip
    return f"{text_table(header, lines)}\n\n{rows[0]['device']}"


def growth_plot(rows: Sequence[Row]) -> bytes:
    """A PNG with two panels for every axis, beside each other: frames per second, and memory."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    panels: dict[str, Any] = {}
    for axis in axes:
        for title, of_row in _GROWTH.items():
            curves: dict[str, tuple[list[int], list[float]]] = {}
            for row in (row for row in rows if row["axis"] == axis):
                values, numbers = curves.setdefault(short_name(row["config"]), ([], []))
                values.append(row["value"])
                numbers.append(of_row(row))
            panels[f"{title}, by {axis}"] = curves
    return plot_curves(panels, [axis for axis in axes for _ in _GROWTH], log=True, columns=4, panel=(3.7, 2.7))


def speed_tables(rows: Sequence[Row]) -> str:
    """Times and rates, and below them the times of the stages."""
    return f"{speed_table(rows)}\n\n{stage_table(rows)}"


def speed_table(rows: Sequence[Row]) -> str:
    """Time, rate and memory, each with the setting it holds for."""
    header = [
        "what",
        "formulation",
        "cache",
        "size",
        "network",
        "precision",
        "s",
        "1/s",
        "peak MiB",
        "added MiB",
        "device",
    ]
    lines = [
        [
            row["what"], row["formulation"], row["cache"], _by(row["size"]), _by(row["network_size"]), row["precision"],
            f"{row['seconds']:.4f}", f"{1 / row['seconds']:.3f}", f"{row['peak_memory'] / _MIB:.0f}",
            f"{row['added_memory'] / _MIB:.0f}", row["device"],
        ]
        for row in rows
    ]  # fmt: skip
    return text_table(header, lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Median milliseconds of every stage."""
    names = list(dict.fromkeys(name for row in rows for name in row["stages"]))
    lines = [
        [
            f"{row['what']}, {row['formulation']}, {row['cache']}",
            *(f"{1000 * row['stages'][n]:.1f}" if n in row["stages"] else "-" for n in names),
        ]
        for row in rows
    ]
    return text_table(["ms (median)", *names], lines)


def memory_table(rows: Sequence[Row]) -> str:
    """Memory in use along a video."""
    lines = [
        [r["what"], _by(r["size"]), r["precision"], r["cache"], f"{r['memory'] / _MIB:.1f}", r["device"]] for r in rows
    ]
    grown = (rows[-1]["memory"] - rows[0]["memory"]) / _MIB
    table = text_table(["what", "size", "precision", "cache", "MiB in use", "device"], lines)
    return f"{table}\n\nfrom the first to the last point: {grown:+.1f} MiB"


def loading_table(rows: Sequence[Row]) -> str:
    """Batches, clips and images per second, by the number of workers."""
    lines = [
        [
            row["what"], row["formulation"], _by(row["size"]), str(row["workers"]), f"{1000 * row['seconds']:.1f}",
            f"{row['clips'] / row['seconds']:.2f}", f"{row['images'] / row['seconds']:.1f}", row["device"],
        ]
        for row in rows
    ]  # fmt: skip
    return text_table(
        ["what", "formulation", "size", "workers", "ms per batch", "clips/s", "images/s", "device"], lines
    )


def comparison(rows: Sequence[Row]) -> list[str]:
    """How the product relates to the reference, in sentences."""
    reference = [row for row in rows if row["formulation"] == "reference"]
    lines = []
    for row in (row for row in rows if row["formulation"] == "product"):
        for other in reference:
            if row.get("workers") != other.get("workers"):
                continue
            ratio = other["seconds"] / row["seconds"]
            if "workers" in row:
                lines.append(f"{row['workers']} workers: {ratio:.2f} times as fast as the reference")
                continue
            line = f"{row['what']} ({row['cache']}): {ratio:.2f} times as fast as the reference"
            if "resize+argmax" in row["stages"]:
                line += f"; network alone {_network_seconds(other) / _network_seconds(row):.2f} times"
            lines.append(f"{line}; {row['added_memory'] / max(other['added_memory'], 1):.2f} of the added memory")
    return lines


def worst_case(rows: Sequence[Row]) -> list[str]:
    """What the time of the label map depends on."""
    return [
        f"{row['what']} ({row['cache']}): the label map takes {1000 * row['stages']['resize+argmax']:.0f} ms with "
        f"random weights, its worst case, and {1000 * row['label_map_few_classes']:.0f} ms where 16 classes can win"
        for row in rows
        if "label_map_few_classes" in row
    ]


def _network_seconds(row: Row) -> float:
    """Without reading the frames and without the final resize and argmax."""
    return row["seconds"] - row["stages"]["read"] - row["stages"]["resize+argmax"]


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


TABLES = {
    "stream": speed_tables,
    "train": speed_tables,
    "video": speed_table,
    "memory": memory_table,
    "data": loading_table,
}  # by mode
