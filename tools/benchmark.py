#!/usr/bin/env python
"""Speed and memory of models: python tools/benchmark.py CONFIG ... [--mode stream|train|memory|data|table|growth]."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.engine.benchmark import Job, Row, in_own_process, measure_memory, measure_stream, measure_train
from mmseg.engine.benchmark_growth import HEIGHTS, growth_rows
from mmseg.engine.benchmark_loading import measure_loading
from mmseg.errors import ConfigError
from mmseg.evaluation.tables import text_table
from mmseg.files import write_bytes, write_json
from mmseg.values import NonNegativeInt, PositiveInt
from mmseg.visualization.plots import plot_curves

_MEASURES = {"stream": measure_stream, "train": measure_train, "memory": measure_memory, "data": measure_loading}
_SIZES = {"stream": (480, 853), "train": (480, 480), "memory": (480, 853), "data": (0, 0), "growth": (480, 852)}
_REPEATS = {"stream": 10, "train": 3, "memory": 2000, "data": 10, "growth": 4}
_MIB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Frames per second, times of the stages and peak memory")
    parser.add_argument("config", nargs="+", help="config files; several with --mode table and --mode growth")
    parser.add_argument(
        "--mode",
        choices=[*_MEASURES, "table", "growth"],
        default="stream",
        help="streaming inference, a training step, the memory of the test loop along a video, the training data of "
        "the config with 0, 1 and 2 workers, one table with streams and training steps of all configs in several "
        "precisions, or how the cost of streams grows with the frame, the classes, the clip, the objects and processes",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=cli.number(PositiveInt),
        metavar=("H", "W"),
        help="frame (480 853), training crop (480 480)",
    )
    parser.add_argument(
        "--frames",
        type=cli.number(PositiveInt),
        help="frames (in whole blocks), steps or batches measured (10, 3, 10; growth 4), length of the video (2000)",
    )
    parser.add_argument(
        "--clips", type=cli.number(NonNegativeInt), default=0, help="batch of a training step (default: the config's)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--amp", nargs="?", const="bfloat16", choices=["bfloat16", "float16"], help="mixed precision")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument(
        "--threads", type=cli.number(NonNegativeInt), default=0, help="CPU threads (default: PyTorch's choice)"
    )
    parser.add_argument(
        "--against-reference", action="store_true", help="measure the formulas of tests/reference as well"
    )
    number = cli.number(PositiveInt)
    parser.add_argument("--objects", type=number, default=2, help="objects that are followed (GSFM; default: 2)")
    parser.add_argument("--memory-frames", type=number, default=12, help="frames in memory (GSFM; default: 12)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--plot", type=Path, help="draw the curves of --mode growth there, as a PNG")
    parser.add_argument(
        "--heights", type=number, nargs="+", metavar="H", help=f"of the frames of --mode growth ({_words(HEIGHTS)})"
    )
    cli.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if (args.plot or args.heights) and args.mode != "growth":
        raise ConfigError(f"--plot or --heights with --mode {args.mode}", "--mode growth", "leave them out")
    if args.mode == "growth":
        show_growth(args)
        return
    if args.mode == "table":
        rows = [row for config in args.config for row in table_rows(args, config)]
        print(overview_table(rows))
        if args.json is not None:
            write_json(args.json, {"torch": torch.__version__, "rows": rows})
        return
    if len(args.config) > 1:
        raise ConfigError(f"{len(args.config)} configs with --mode {args.mode}", "one", "use --mode table or growth")
    if args.mode == "data" and (args.size or args.amp or args.compile):
        raise ConfigError(
            "--size, --amp or --compile with --mode data",
            "none of them: the data alone are made, as the config says",
            "change the config, as with --options data.train...",
        )
    job = make_job(args, args.config[0], args.mode)
    rows = []
    if args.against_reference and args.mode != "memory":
        repeats = job.repeats if args.mode == "data" else min(job.repeats, 3)
        rows = in_own_process(_MEASURES[args.mode], replace(job, reference=True, repeats=repeats))
    rows = in_own_process(_MEASURES[args.mode], job) + rows
    print(_TABLES.get(args.mode, speed_tables)(rows))
    for line in [*comparison(rows), *worst_case(rows)]:
        print(line)
    if args.json is not None:
        write_json(args.json, {"config": args.config[0], "torch": torch.__version__, "rows": rows})


def show_growth(args: argparse.Namespace) -> None:
    """Measure how the cost of every config grows; a line on the way, then the table and the plot."""
    if args.against_reference:
        raise ConfigError("--against-reference with --mode growth", "the product alone", "use --mode stream for both")
    rows: list[Row] = []
    refused: list[str] = []
    for config in args.config:
        name = Path(config).stem
        for row in growth_rows(make_job(args, config, "growth"), args.heights or HEIGHTS, refused):
            rows.append(row)
            sys.stderr.write(f"{name}, {row['axis']} {row['value']}: {row['seconds']:.3f} s a frame\n")
    for line in refused:
        sys.stderr.write(f"left out: {line}\n")
    print(growth_table(rows))
    if args.json is not None:
        write_json(args.json, {"torch": torch.__version__, "rows": rows, "left_out": refused})
    if args.plot is not None:
        write_bytes(args.plot, growth_plot(rows))


def make_job(args: argparse.Namespace, config: str, mode: str, **changes: Any) -> Job:
    """The job that the command line describes."""
    job = Job(
        config=config,
        options=args.options,
        size=tuple(args.size or _SIZES[mode]),
        device=args.device,
        amp=args.amp,
        repeats=args.frames or _REPEATS[mode],
        clips=args.clips,
        compile=args.compile,
        threads=args.threads,
        objects=args.objects,
        memory_frames=args.memory_frames,
    )
    return replace(job, **changes)


def table_rows(args: argparse.Namespace, config: str) -> list[Row]:
    """Streams and training steps of a config: float32 and bfloat16, with the reference and --compile if asked for."""
    settings: list[dict[str, Any]] = [{"compile": False}, {"compile": False, "amp": "bfloat16"}]
    if args.compile:
        settings.append({})
    if args.against_reference:
        settings.append({"compile": False, "reference": True, "repeats": 2})
    rows = []
    for mode in ("stream", "train"):
        jobs = [make_job(args, config, mode, **changes) for changes in settings]
        rows += in_own_process(_MEASURES[mode], *jobs)
    sys.stderr.write(f"{config}: {len(rows)} measurements\n")
    return [{"config": config, **row} for row in rows]


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


def growth_table(rows: Sequence[Row]) -> str:
    """One line per measurement, in the order of the axes."""
    header = ["what grows", "config", "value", "frames/s", "ms", "peak MiB"]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    lines = [
        [
            row["axis"], Path(row["config"]).stem, str(row["value"]), f"{1 / row['seconds']:.2f}",
            f"{1000 * row['seconds']:.0f}", f"{row['peak_memory'] / _MIB:.0f}",
        ]
        for row in sorted(rows, key=lambda row: axes.index(row["axis"]))
    ]  # fmt: skip
    return f"{text_table(header, lines)}\n\n{rows[0]['device']}"


def growth_plot(rows: Sequence[Row]) -> bytes:
    """A PNG with two panels for every axis: frames per second, and memory."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    panels: dict[str, Any] = {}
    for axis in axes:
        for title, of_row in _GROWTH.items():
            curves: dict[str, tuple[list[int], list[float]]] = {}
            for row in (row for row in rows if row["axis"] == axis):
                values, numbers = curves.setdefault(Path(row["config"]).stem, ([], []))
                values.append(row["value"])
                numbers.append(of_row(row))
            panels[f"{title}, by {axis}"] = curves
    return plot_curves(panels, [axis for axis in axes for _ in _GROWTH], log=True)


_GROWTH = {"frames per second": lambda row: 1 / row["seconds"], "peak MiB": lambda row: row["peak_memory"] / _MIB}


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


_TABLES = {"memory": memory_table, "data": loading_table}


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


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    cli.run(main)
