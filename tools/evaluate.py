#!/usr/bin/env python
"""Score stored predictions: python tools/evaluate.py PRED_DIR --data-root data/vspw/VSPW_480p (see docs/testing.md).

PRED_DIR holds ``<video>/<frame stem>.png`` (palette or grey PNGs, pixel = class number 0..K-1) of any origin; a
``res.pkl`` of a test run is taken as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.evaluation import evaluate_predictions, temporal_consistency
from mmseg.datasets import VSPWDataset
from mmseg.errors import ConfigError
from mmseg.writing.results import write_json


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, help="folder of <video>/<frame>.png, or a res.pkl")
    parser.add_argument("--data-root", default="data/vspw/VSPW_480p", help="folder with data/ and the split files")
    parser.add_argument("--split", default="val", help="name of the split file without .txt (default: val)")
    parser.add_argument("--num-classes", type=int, help="number of classes (default: that of the data set)")
    parser.add_argument("--out", type=Path, help="write all numbers there, as JSON")
    parser.add_argument("--workers", type=int, default=0, help="processes that share the videos (default: none)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 16], help="clip lengths of VC (default: 8 16)")
    parser.add_argument("--min-frames", type=int, help="shortest video that counts (default: longest clip + 1)")
    parser.add_argument("--all-windows", action="store_true", help="VC: count the last window of each video too")
    parser.add_argument("--ignore-void", action="store_true", help="VC: leave ignored pixels out")
    parser.add_argument("--good-threshold", type=float, default=0.8, help="list videos of higher mIoU (default: 0.8)")
    parser.add_argument("--flow-dir", type=Path, help="also TC, with flow <video>/<stem of the earlier frame>.npy")
    parser.add_argument("--align-corners", action="store_true", help="TC: sample where the flow points")
    args = parser.parse_args(argv)
    if args.flow_dir is not None and args.predictions.is_file():
        raise ConfigError("--flow-dir with a .pkl file", "a folder of PNGs", "test with --save-png")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    dataset = VSPWDataset(data_root=args.data_root, split=args.split, pipeline=[], test_mode=True)
    evaluator = evaluate_predictions(
        args.predictions,
        dataset,
        args.num_classes,
        args.workers,
        lengths=args.lengths,
        min_frames=args.min_frames,
        all_windows=args.all_windows,
        ignore_void=args.ignore_void,
        good_threshold=args.good_threshold,
    )
    report = {"predictions": str(args.predictions), "data_root": args.data_root, "split": args.split}
    report.update(evaluator.report())
    print(evaluator.tables())
    if args.flow_dir is not None:
        metric = temporal_consistency(args.predictions, args.flow_dir, dataset, args.num_classes, args.align_corners)
        report["temporal_consistency"] = metric.report()
        print(f"\nTC : {metric.compute()['TC']} ({metric.compute()['videos']} videos)")
    if args.out is not None:
        write_json(args.out, report)
        print(f"\nwritten: {args.out}")


if __name__ == "__main__":
    cli.run(main)
