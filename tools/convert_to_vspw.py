#!/usr/bin/env python
"""Turn a tree of frames and masks (JPEGImages/Annotations, or others) and a class map into the VSPW layout.

Example: classes per sequence, two sequences for validation, the last 30 % of the others held out, half size:

    python tools/convert_to_vspw.py DAVIS data/davis-vspw --classes dog=dog libby=dog drift-chicane=car '*=other' \\
        --val libby --hold-out-time 0.3 --max-side 427
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.datasets.video_layout import FLAT_NAMES
from mmseg.making.convert import ConvertOptions, convert_to_vspw
from mmseg.making.mask_values import ClassMap, read_class_map
from mmseg.values import Fraction, PositiveInt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of JPEGImages[/480p]/<sequence> and Annotations[/480p]/<sequence>")
    parser.add_argument("root", help="folder to make")
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        required=True,
        metavar="MAP",
        help="SEQUENCE=CLASS, MASK_VALUE=CLASS, '#RRGGBB=CLASS' for colour masks ('*' for all others each), or JSON "
        "files of {sequence: class}, {sequence: {mask value: class}} or {mask value: class}; class 'void' is ignored",
    )
    parser.add_argument("--background", default="background", help="class of value 0 or black; 'void' ignores it")
    parser.add_argument("--sequences", nargs="+", action="extend", metavar="NAME", help="take only these")
    parser.add_argument("--val", nargs="+", action="extend", default=[], metavar="NAME", help="sequences for val.txt")
    parser.add_argument("--test", nargs="+", action="extend", default=[], metavar="NAME", help="sequences for test.txt")
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
    parser.add_argument(
        "--unlabelled",
        choices=["error", "drop", "keep"],
        default="error",
        help="frames without a mask (default: error)",
    )
    parser.add_argument(
        "--frames-dir", metavar="DIR", help="folder of frames in SOURCE (JPEGImages); {video} is its name"
    )
    parser.add_argument("--masks-dir", metavar="DIR", help="folder of masks in SOURCE (Annotations)")
    parser.add_argument("--frame-suffix", metavar="END", help="end of the names of frames, as _leftImg8bit.png")
    parser.add_argument("--mask-suffix", metavar="END", help="end of the names of masks, as _labels.png")
    parser.add_argument(
        "--video-pattern", default=FLAT_NAMES, metavar="REGEX", help="finds the video in names of one flat folder"
    )
    parser.add_argument("--force", action="store_true", help="replace a data set that this tool has made")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    class_map = ClassMap(read_class_map(args.classes), args.background)
    options = ConvertOptions(
        val=tuple(args.val),
        test=tuple(args.test),
        hold_out_time=args.hold_out_time,
        frames=args.frames,
        size=tuple(args.size) if args.size else None,
        max_side=args.max_side,
        unlabelled=args.unlabelled,
        frames_dir=args.frames_dir,
        masks_dir=args.masks_dir,
        frame_suffix=args.frame_suffix,
        mask_suffix=args.mask_suffix,
        video_pattern=args.video_pattern,
    )
    summary = convert_to_vspw(
        args.source, args.root, class_map, options, args.sequences, args.force, progress=show_progress
    )
    for split, videos in summary.items():
        listed = ", ".join(f"{name} ({frames})" for name, frames in videos) or "-"
        print(f"{split}.txt: {sum(frames for _, frames in videos)} frames of {len(videos)} videos: {listed}")
    entries = [f"data_root={args.root}", f"data.num_classes={len(class_map.classes)}"]
    entries += ["data.every.unlabelled=keep"] if args.unlabelled == "keep" else []
    print(f"classes: {', '.join(class_map.classes)}")
    print(f"use it with --options {shlex.join(entries)}")


def show_progress(name: str, number: int, total: int) -> None:
    """One line that is written over on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r[{number}/{total}] {name:<40}" + ("\n" if number == total else ""))


if __name__ == "__main__":
    cli.run(main)
