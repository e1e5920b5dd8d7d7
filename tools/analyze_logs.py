#!/usr/bin/env python
"""Curves and a table of trainings: python tools/analyze_logs.py NAME=WORK_DIR ... [--keys loss mIoU] [--out a.png]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.engine.log_files import chosen_keys, curves, read_runs, summary
from mmseg.evaluation.tables import text_table
from mmseg.files import write_bytes
from mmseg.values import PositiveInt
from mmseg.visualization.plots import plot_curves


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG", help="work folder or .log.json; a name is optional")
    parser.add_argument("--keys", nargs="+", help="numbers to show (default: the loss and the first score)")
    parser.add_argument("--list", action="store_true", help="list what the logs hold, and draw nothing")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="the picture (default: curves.png)")
    parser.add_argument(
        "--smooth", type=cli.number(PositiveInt), default=1, metavar="N", help="mean of the last N values"
    )
    args = parser.parse_args()
    if args.out.suffix.lower() != ".png":
        parser.error(f"argument --out: {args.out} does not end in .png")
    return args


def main() -> None:
    args = parse_args()
    runs = read_runs(args.runs)
    if args.list:
        for run in runs:
            cli.say(f"{run.name}: {', '.join(run.keys)}")
        return
    keys = chosen_keys(runs, args.keys)
    found = {run.name: summary(run, keys) for run in runs}
    columns = list(next(iter(found.values())))
    rows = [[name, *("-" if n is None else f"{n:.6g}" for n in numbers.values())] for name, numbers in found.items()]
    cli.say(text_table(["run", *columns], rows))
    write_bytes(args.out, plot_curves({key: curves(runs, key, args.smooth) for key in keys}))
    cli.say(f"\nwritten: {args.out}")


if __name__ == "__main__":
    cli.run(main)
