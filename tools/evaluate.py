#!/usr/bin/env python
"""Score stored predictions: python tools/evaluate.py PRED_DIR --data-root data/vspw/VSPW_480p (see docs/testing.md).

PRED_DIR holds ``<video>/<frame stem>.png`` (palette or grey PNGs, pixel = class number 0..K-1) of any origin; a
``res.pkl`` of a test run is taken as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.evaluation import DATA_ROOT, evaluate_predictions, stored_dataset, temporal_consistency
from mmseg.apis.testing import joined_reports
from mmseg.datasets.base import VideoDataset
from mmseg.errors import ConfigError
from mmseg.files import NewFile
from mmseg.values import Fraction, NonNegativeInt, PositiveInt
from mmseg.writing.base import ResultOptions

METRIC_OPTIONS = ("lengths", "min_frames", "all_windows", "ignore_void", "good_threshold")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, help="folder of <video>/<frame>.png, or a res.pkl")
    cli.add_dataset(parser, DATA_ROOT)
    parser.add_argument("--out", type=Path, help="write all numbers there, as JSON")
    parser.add_argument(
        "--workers", type=cli.number(NonNegativeInt), default=0, help="processes that share the videos (default: none)"
    )
    parser.add_argument("--lengths", type=cli.number(PositiveInt), nargs="+", help="clip lengths of VC (default: 8 16)")
    parser.add_argument(
        "--min-frames", type=cli.number(PositiveInt), help="shortest video that counts (default: longest clip + 1)"
    )
    parser.add_argument(
        "--all-windows", action="store_true", default=None, help="VC: count the last window of each video too"
    )
    parser.add_argument("--ignore-void", action="store_true", default=None, help="VC: leave ignored pixels out")
    parser.add_argument("--good-threshold", type=cli.number(Fraction), help="list videos of higher mIoU (default: 0.8)")
    parser.add_argument("--flow-dir", type=Path, help="also TC, with flow <video>/<stem of the earlier frame>.npy")
    parser.add_argument("--align-corners", action="store_true", help="TC: sample where the flow points")
    args = parser.parse_args(argv)
    if args.flow_dir is not None and args.predictions.is_file():
        raise ConfigError("--flow-dir with a .pkl file", "a folder of PNGs", "test with --save-png")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    dataset = stored_dataset(args.config, args.options, **cli.dataset_settings(args))
    given = {name: getattr(args, name) for name in METRIC_OPTIONS if getattr(args, name) is not None}
    options = ResultOptions(metrics=dataset.metric_names, metric_options=given)
    with NewFile(args.out) if args.out else nullcontext() as out:  # a bad place is told at once
        report = score(args, dataset, options)
        if out is not None:
            out.write((json.dumps(report, indent=2) + "\n").encode())
    if args.out is not None:
        print(f"\nwritten: {args.out}")


def _found_in(dataset: VideoDataset) -> dict[str, str]:
    """Where the truth comes from, as far as the data set says it."""
    return {name: str(getattr(dataset, name)) for name in ("data_root", "split") if hasattr(dataset, name)}


def score(args: argparse.Namespace, dataset: VideoDataset, options: ResultOptions) -> dict[str, Any]:
    """Print the tables; returns all numbers."""
    evaluators = evaluate_predictions(args.predictions, dataset, options, args.workers)
    report = {"predictions": str(args.predictions), **_found_in(dataset)}
    report.update(joined_reports(evaluators))
    for evaluator in evaluators:
        print(evaluator.tables())
    if args.flow_dir is not None:
        metric = temporal_consistency(args.predictions, args.flow_dir, dataset, args.align_corners)
        report["temporal_consistency"] = metric.report()
        print(f"\nTC : {metric.compute()['TC']} ({metric.compute()['videos']} videos)")
    return report


if __name__ == "__main__":
    cli.run(main)
