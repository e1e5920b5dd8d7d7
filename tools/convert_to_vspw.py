#!/usr/bin/env python
"""Turn a JPEGImages/Annotations tree and a class map into the VSPW layout.

Example: classes per sequence, two sequences for validation, the last 30 % of the others held out, half size:

    python tools/convert_to_vspw.py DAVIS data/davis-vspw --classes dog=dog libby=dog drift-chicane=car '*=other' \\
        --val libby --hold-out-time 0.3 --max-side 427
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.making.convert import ConvertOptions, convert_to_vspw
from mmseg.making.mask_values import ClassMap, read_class_map
from mmseg.values import Fraction, PositiveInt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="holds JPEGImages[/480p]/<sequence> and Annotations[/480p]/<sequence>")
    parser.add_argument("root", help="folder to make")
    parser.add_argument(
        "--classes",
        nargs="+",
        required=True,
        metavar="MAP",
        help="SEQUENCE=CLASS ('*' for all others), MASK_VALUE=CLASS, or JSON files of {sequence: class}, "
        "{sequence: {mask value: class}} or {mask value: class}",
    )
    parser.add_argument("--background", default="background", help="class of mask value 0, or 'void' to ignore it")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="take only these")
    parser.add_argument("--val", nargs="+", default=[], metavar="NAME", help="sequences for val.txt")
    parser.add_argument("--test", nargs="+", default=[], metavar="NAME", help="sequences for test.txt")
    parser.add_argument(
        "--hold-out-time",
        type=cli.number(Fraction),
        default=0.0,
        metavar="SHARE",
        help="the last frames of each training sequence become a video <name>_late of val.txt",
    )
    size = parser.add_mutually_exclusive_group()
    pixels = cli.number(PositiveInt)
    size.add_argument("--size", type=pixels, nargs=2, metavar=("H", "W"), help="resize frames and masks to this")
    size.add_argument("--max-side", type=pixels, metavar="N", help="shrink until the longer side has N pixels")
    parser.add_argument("--frames", choices=["symlink", "copy"], default="symlink", help="how frames get there")
    parser.add_argument("--unlabelled", choices=["error", "drop"], default="error", help="frames without a mask")
    parser.add_argument("--force", action="store_true", help="replace a data set that this tool has made")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    background = None if args.background == "void" else args.background
    class_map = ClassMap(read_class_map(args.classes), background)
    options = ConvertOptions(
        val=tuple(args.val),
        test=tuple(args.test),
        hold_out_time=args.hold_out_time,
        frames=args.frames,
        size=tuple(args.size) if args.size else None,
        max_side=args.max_side,
        unlabelled=args.unlabelled,
    )
    summary = convert_to_vspw(
        args.source, args.root, class_map, options, args.sequences, args.force, progress=show_progress
    )
    for split, videos in summary.items():
        listed = ", ".join(f"{name} ({frames})" for name, frames in videos) or "-"
        print(f"{split}.txt: {sum(frames for _, frames in videos)} frames of {len(videos)} videos: {listed}")
    print(f"classes: {', '.join(class_map.classes)}\nset decode_head.num_classes={len(class_map.classes)}")


def show_progress(name: str, number: int, total: int) -> None:
    """One line that is written over on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r[{number}/{total}] {name:<40}" + ("\n" if number == total else ""))


if __name__ == "__main__":
    cli.run(main)
