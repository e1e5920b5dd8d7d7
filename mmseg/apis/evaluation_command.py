"""The arguments of ``tools/evaluate.py`` and what it does with them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmseg.apis import cli
from mmseg.apis.evaluation import (
    DATA_ROOT,
    evaluate_predictions,
    joined_reports,
    stored_dataset,
    temporal_consistency,
    write_confusion,
)
from mmseg.apis.object_evaluation import PROTOCOLS, MaskScoring, score_masks
from mmseg.apis.reports import add_report_arguments, class_page, mask_page, report_path
from mmseg.datasets.base import VideoDataset
from mmseg.errors import ConfigError
from mmseg.files import NewFile
from mmseg.values import Byte, Fraction, NonNegativeInt, PositiveInt
from mmseg.writing.base import ResultOptions

_METRIC_OPTIONS = ("lengths", "min_frames", "all_windows", "ignore_void", "good_threshold")
_DATA_SET = ("config", "options", "data_root", "split", "num_classes", "reduce_zero_label")
_VSPW_ONLY = (*_METRIC_OPTIONS, *_DATA_SET, "confusion")
_MASKS_ONLY = ("videos", "images", "csv", "all_frames", "toolkit", "pooled", "truth_threshold", "meta", "seen")


Scored = tuple[dict[str, Any], Callable[[], str]]
"""All numbers, and what makes the report."""


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` everything."""
    parser.add_argument("predictions", type=Path, help="folder of <video>/<frame>.png, or a res.pkl")
    parser.add_argument("truth", type=Path, nargs="?", help="folder of the masks (vspw: the data root)")
    parser.add_argument("--protocol", choices=["vspw", *PROTOCOLS], default="vspw")
    parser.add_argument("--out", type=Path, help="write all numbers there, as JSON")
    add_report_arguments(parser)
    parser.add_argument(
        "--workers", type=cli.number(NonNegativeInt), default=0, help="processes that share the videos (default: none)"
    )
    parser.add_argument("--flow-dir", type=Path, help="also TC, with flow <video>/<stem of the earlier frame>.npy")
    parser.add_argument("--align-corners", action="store_true", help="TC: sample where the flow points")
    _add_vspw(parser.add_argument_group("vspw"))
    _add_masks(parser.add_argument_group("masks of objects"))


def _add_vspw(group: Any) -> None:
    cli.add_dataset(group, DATA_ROOT)
    group.add_argument("--lengths", type=cli.number(PositiveInt), nargs="+", help="clip lengths of VC (default: 8 16)")
    group.add_argument(
        "--min-frames", type=cli.number(PositiveInt), help="shortest video that counts (default: longest clip + 1)"
    )
    group.add_argument(
        "--all-windows", action="store_true", default=None, help="VC: count the last window of each video too"
    )
    group.add_argument("--ignore-void", action="store_true", default=None, help="VC: leave ignored pixels out")
    group.add_argument("--confusion", type=Path, metavar="PNG", help="draw the confusion matrix there")
    group.add_argument("--good-threshold", type=cli.number(Fraction), help="list videos of higher mIoU (default: 0.8)")


def _add_masks(group: Any) -> None:
    group.add_argument("--videos", type=Path, help="a list of the videos that count (default: all with a truth)")
    group.add_argument("--images", type=Path, help="frames for --report (default: JPEGImages beside Annotations)")
    group.add_argument("--csv", type=Path, help="write the two tables of the DAVIS-2017 toolkit into this folder")
    group.add_argument("--all-frames", action="store_true", default=None, help="count first and last frames, too")
    group.add_argument(
        "--toolkit", choices=["pysodmetrics", "vsod"], help="vsod: whose numbers (default: pysodmetrics)"
    )
    group.add_argument("--pooled", action="store_true", default=None, help="vsod: mean over all frames in one list")
    group.add_argument("--truth-threshold", type=cli.number(Byte), help="vsod: object where more (default: 128)")
    group.add_argument("--meta", type=Path, help="youtube: meta.json (default: beside the masks)")
    group.add_argument("--seen", type=Path, help="youtube: meta.json of the training set, or a list of its categories")


def run_evaluation(args: argparse.Namespace) -> None:
    """Score ``args.predictions`` as the arguments say, print the tables, and write all numbers to ``args.out``.

    Raises:
        SegError: arguments that do not go together, and bad input.
    """
    _check(args)
    places = [args.out, report_path(args.report, None if args.out is None else args.out.parent)]
    if all(places) and places[0].resolve() == places[1].resolve():
        raise ConfigError(f"--out and --report are both {args.out}", "two files", "give --report another name")
    if args.protocol == "vspw":
        dataset = stored_dataset(args.config, args.options, **cli.dataset_settings(args))
    with ExitStack() as stack:
        out, page = (stack.enter_context(NewFile(path)) if path else None for path in places)  # a bad place is told now
        if args.protocol == "vspw":
            given = {name: getattr(args, name) for name in _METRIC_OPTIONS if getattr(args, name) is not None}
            options = ResultOptions(metrics=dataset.metric_names, metric_options=given)
            report, draw = _score_classes(args, dataset, options)
        else:
            report, draw = _score_objects(args)
        if out is not None:
            out.write((json.dumps(report, indent=2) + "\n").encode())
        if page is not None:
            page.write(draw().encode())
    if any(places):
        cli.say(f"\nwritten: {', '.join(str(path) for path in places if path)}")


def _check(args: argparse.Namespace) -> None:
    """Raise ConfigError for arguments that do not go together."""
    foreign = _MASKS_ONLY if args.protocol == "vspw" else _VSPW_ONLY
    for name in foreign:
        if getattr(args, name) not in (None, {}):
            raise ConfigError(
                f"--{name.replace('_', '-')} with --protocol {args.protocol}",
                "options of this protocol",
                "leave it out, or say which --protocol is meant",
            )
    if args.protocol != "vspw" and args.truth is None:
        raise ConfigError(
            f"--protocol {args.protocol} without masks",
            "two folders, of predictions and of true masks",
            f"python tools/evaluate.py --protocol {args.protocol} {args.predictions} DAVIS/Annotations/480p",
        )
    if args.protocol == "vspw" and args.truth is not None:
        if args.data_root is not None:
            raise ConfigError(f"{args.truth} and --data-root {args.data_root}", "one data root", "leave one out")
        args.data_root = str(args.truth)
    if args.images is not None and args.report is None:
        raise ConfigError("--images without --report", "the report that shows them", "give --report")
    if args.align_corners and args.flow_dir is None:
        raise ConfigError("--align-corners without --flow-dir", "the flow that TC is computed with", "give --flow-dir")
    if args.flow_dir is not None and args.predictions.is_file():
        raise ConfigError("--flow-dir with a .pkl file", "a folder of PNGs", "test with --save-png")


def _score_classes(args: argparse.Namespace, dataset: VideoDataset, options: ResultOptions) -> Scored:
    """Print the tables of a data set of classes."""
    evaluators = evaluate_predictions(args.predictions, dataset, options, args.workers)
    # where the truth comes from, as far as the data set says it
    place = {name: str(getattr(dataset, name)) for name in ("data_root", "split") if hasattr(dataset, name)}
    report = {"predictions": str(args.predictions), **place, **joined_reports(evaluators)}
    for evaluator in evaluators:
        cli.say(evaluator.tables())
    if args.confusion is not None:
        write_confusion(args.confusion, evaluators)
    if args.flow_dir is not None:
        metric = temporal_consistency(args.predictions, args.flow_dir, dataset, args.align_corners)
        report["temporal_consistency"] = metric.report()
    _say_consistency(report)
    facts = {"predictions": args.predictions, "data": type(dataset).__name__, **place}
    facts = {"config": args.config, **{name: str(value) for name, value in facts.items()}}
    return report, lambda: class_page(args.predictions, dataset, evaluators, facts, args.report_frames)


def _score_objects(args: argparse.Namespace) -> Scored:
    """Print the tables of masks of objects."""
    scoring = MaskScoring(**{field.name: getattr(args, field.name) for field in fields(MaskScoring)})
    evaluator, report = score_masks(scoring)
    cli.say(evaluator.tables())
    if report["not_scored"]:
        reason = "have no truth" if args.videos is None else f"are not in {args.videos}, or have no truth"
        cli.say(f"not scored, since they {reason}: {', '.join(report['not_scored'])}")
    _say_consistency(report)
    facts = {"predictions": str(args.predictions), "truth": str(args.truth)}
    return report, lambda: mask_page(scoring, evaluator, facts, args.images, args.report_frames)


def _say_consistency(report: dict[str, Any]) -> None:
    found = report.get("temporal_consistency")
    if found is not None:
        cli.say(f"\nTC : {found['TC']} ({found['videos']} videos)")
