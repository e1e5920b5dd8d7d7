#!/usr/bin/env python
"""Clips as a training sees them, with their labels: python tools/browse_dataset.py CONFIG [--out clips.png|.html]."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.browsing import browse
from mmseg.config import load_config
from mmseg.files import write_bytes, write_text
from mmseg.sections import Seed
from mmseg.values import NonNegativeInt, PositiveInt
from mmseg.visualization import palette_table
from mmseg.visualization.clip_sheet import clip_page, clip_sheet


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--section", choices=["train", "val", "test"], default="train", help="of data (default: train)")
    parser.add_argument("--out", type=Path, default=Path("clips.png"), help=".png or .html (default: clips.png)")
    parser.add_argument("--number", type=cli.number(PositiveInt), default=6, help="of clips (default: 6)")
    parser.add_argument("--seed", type=cli.number(Seed), default=0, help="of the training (default: 0)")
    parser.add_argument("--start", type=cli.number(NonNegativeInt), default=0, help="the first sample (default: 0)")
    parser.add_argument("--videos", nargs="+", action="extend", help="show clips of these alone")
    parser.add_argument("--width", type=cli.number(PositiveInt), default=240, help="of a frame (default: 240)")
    cli.add_options(parser)
    args = parser.parse_args()
    if args.out.suffix.lower() not in (".png", ".html"):
        parser.error(f"argument --out: {args.out} does not end in .png or .html")
    return args


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    cfg = load_config(args.config, args.options)
    dataset, clips = browse(cfg, args.section, args.number, args.seed, args.start, args.videos)
    table = palette_table(dataset.PALETTE, dataset.num_classes or None)
    if args.out.suffix.lower() == ".html":
        title = f"data.{args.section} of {args.config}"
        write_text(args.out, clip_page(title, clips, table, dataset.CLASSES, args.width))
    else:
        sheet = clip_sheet(clips, table, dataset.CLASSES, args.width)
        write_bytes(args.out, cv2.imencode(".png", sheet)[1].tobytes())
    for clip in clips:
        cli.say(clip.title)
    cli.say(f"\nwritten: {args.out}")


if __name__ == "__main__":
    cli.run(main)
