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
from mmseg.apis.evaluation import evaluate_predictions
from mmseg.datasets import VSPWDataset
from mmseg.writing.results import write_json


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default="data/vspw//VSPW_480p", help="folder with data/ and the split files")
    parser.add_argument("--split", default="val", help="name of the split file without .txt (default: val)")
    parser.add_argument("--predictions", type=Path, default=Path("./models/vspw2/result_submission"))
    parser.add_argument("--num-classes", type=int, help="number of classes (default: that of the data set)")
    parser.add_argument("--good-threshold", type=float, default=0.8, help="list videos of higher mIoU (MRCFA: 0.7)")
    parser.add_argument("--workers", type=int, default=0, help="processes that share the videos (default: none)")
    parser.add_argument("--out", type=Path, help="write all numbers there, as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    dataset = VSPWDataset(data_root=args.data_root, split=args.split, pipeline=[], test_mode=True)
    evaluator = evaluate_predictions(
        args.predictions, dataset, args.num_classes, args.workers, good_threshold=args.good_threshold
    )
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
    print("Acc, Acc_class, mIoU, FWIoU:", [scores[name] for name in ("Acc", "Acc_class", "mIoU", "FWIoU")])
    print(f"videos of mIoU > {args.good_threshold}:", scores["good_videos"])
    if args.out is not None:
        write_json(args.out, evaluator.report())


if __name__ == "__main__":
    cli.run(main)
