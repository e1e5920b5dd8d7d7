#!/usr/bin/env python
"""Speed and memory of a config's model: python tools/benchmark.py CONFIG [--mode stream|train|memory] (see docs)."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.engine.benchmark import Job, Row, in_own_process, measure_memory, measure_stream, measure_train
from mmseg.evaluation.tables import text_table
from mmseg.files import write_json

_MEASURES = {"stream": measure_stream, "train": measure_train, "memory": measure_memory}
_SIZES = {"stream": (480, 853), "train": (480, 480), "memory": (480, 853)}
_REPEATS = {"stream": 10, "train": 3, "memory": 2000}
_MIB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Frames per second, times of the stages and peak memory")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--mode",
        choices=sorted(_MEASURES),
        default="stream",
        help="streaming inference, a training step, or the memory of the test loop along a video",
    )
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="frame (480 853), training crop (480 480)"
    )
    parser.add_argument("--frames", type=int, help="frames or steps measured (10 / 3), length of the video (2000)")
    parser.add_argument("--clips", type=int, default=0, help="batch of a training step (default: the config's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--amp", nargs="?", const="bfloat16", choices=["bfloat16", "float16"], help="mixed precision")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--against-reference", action="store_true", help="measure the formulas of tests/reference as well"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    cli.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    job = Job(
        config=args.config,
        options=args.options,
        size=tuple(args.size or _SIZES[args.mode]),
        device=args.device,
        amp=args.amp,
        repeats=args.frames or _REPEATS[args.mode],
        clips=args.clips,
        threads=args.threads,
    )
    rows = []
    if args.against_reference and args.mode != "memory":
        rows = in_own_process(_MEASURES[args.mode], replace(job, reference=True, repeats=min(job.repeats, 3)))
    rows = in_own_process(_MEASURES[args.mode], job) + rows
    print(memory_table(rows) if args.mode == "memory" else f"{speed_table(rows)}\n\n{stage_table(rows)}")
    for line in comparison(rows):
        print(line)
    if args.json is not None:
        write_json(args.json, {"config": args.config, "torch": torch.__version__, "rows": rows})


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


def comparison(rows: Sequence[Row]) -> list[str]:
    """How the product relates to the reference, in sentences."""
    reference = [row for row in rows if row["formulation"] == "reference"]
    lines = []
    for row in (row for row in rows if row["formulation"] == "product"):
        for other in reference:
            ratio = other["seconds"] / row["seconds"]
            line = f"{row['what']} ({row['cache']}): {ratio:.2f} times as fast as the reference"
            if "resize+argmax" in row["stages"]:
                line += f"; network alone {_network_seconds(other) / _network_seconds(row):.2f} times"
            lines.append(f"{line}; {row['added_memory'] / max(other['added_memory'], 1):.2f} of the added memory")
    return lines


def _network_seconds(row: Row) -> float:
    """Without reading the frames and without the final resize and argmax."""
    return row["seconds"] - row["stages"]["read"] - row["stages"]["resize+argmax"]


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    cli.run(main)
