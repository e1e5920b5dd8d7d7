#!/usr/bin/env python
"""Video consistency, mIoU and weighted IoU of stored VSPW predictions, with the paths of the official script.

``python tools/VC_perclip.py`` scores ``./models/vspw2/result_submission`` against the val split of
``data/vspw//VSPW_480p``.
``tools/evaluate.py`` gives the same numbers and more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.evaluation import DATA_ROOT, evaluate_predictions, stored_dataset
from mmseg.errors import ConfigError
from mmseg.files import write_json
from mmseg.values import Fraction, NonNegativeInt
from mmseg.writing.base import ResultOptions

SCORES = ("VC16", "VC8", "Acc", "Acc_class", "mIoU", "FWIoU")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_dataset(parser, DATA_ROOT)
    parser.add_argument("--predictions", type=Path, default=Path("./models/vspw2/result_submission"))
    parser.add_argument(
        "--good-threshold", type=cli.number(Fraction), default=0.8, help="list videos of higher mIoU (MRCFA: 0.7)"
    )
    parser.add_argument(
        "--workers", type=cli.number(NonNegativeInt), default=0, help="processes that share the videos (default: none)"
    )
    parser.add_argument("--out", type=Path, help="write all numbers there, as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    dataset = stored_dataset(args.config, args.options, **cli.dataset_settings(args))
    if missing := set(SCORES) - set(dataset.score_names()):
        raise ConfigError(
            f"{type(dataset).__name__} has no {min(missing)}", "VSPW or a data set like it", "use tools/evaluate.py"
        )
    options = ResultOptions(metrics=dataset.metric_names, metric_options={"good_threshold": args.good_threshold})
    (evaluator,) = evaluate_predictions(args.predictions, dataset, options, args.workers)
    scores = evaluator.compute()
    for video, row in scores["per_video"].items():
        if row["counted"]:
            print(f"{video}: VC16 {row['VC16']}, VC8 {row['VC8']}")
    counts = scores["counts"]
    print(
        f"{counts['videos_counted']} of {counts['videos']} videos, "
        f"{counts['frames_counted']} of {counts['frames']} frames; skipped: {scores['skipped_videos'] or 'none'}"
    )
    print(f"VC16 score: {scores['VC16']}")
    print(f"VC8 score: {scores['VC8']}")
    print("Acc, Acc_class, mIoU, FWIoU:", [scores[name] for name in SCORES[2:]])
    print(f"videos of mIoU > {args.good_threshold}:", scores["good_videos"])
    if args.out is not None:
        write_json(args.out, evaluator.report())


if __name__ == "__main__":
    cli.run(main)
