#!/usr/bin/env python
"""A video and its label maps on a page, and which pixels flicker: python tools/show_video.py VIDEO LABELS --out DIR."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.showing import show_video
from mmseg.datasets.class_names import read_classes_file
from mmseg.errors import ConfigError
from mmseg.files import write_bytes
from mmseg.values import PositiveInt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", help="video file, or folder of pictures")
    parser.add_argument(
        "labels",
        nargs="+",
        help="folder of label maps, as tools/infer.py writes it, or TITLE=FOLDER; several to compare",
    )
    parser.add_argument("--out", type=Path, default=Path("shown"), help="folder for the pictures (default: shown)")
    parser.add_argument("--truth", type=Path, help="folder of masks, of some of the frames at least")
    parser.add_argument("--reduce-zero-label", action="store_true", help="0 is void in the truth, v means class v - 1")
    parser.add_argument(
        "--classes", nargs="+", action="extend", help="names in label order, or a folder with classes.json"
    )
    parser.add_argument("--number", type=cli.number(PositiveInt), default=12, help="of frames (default: 12)")
    parser.add_argument("--columns", type=cli.number(PositiveInt), default=4, help="of the sheet (default: 4)")
    parser.add_argument("--width", type=cli.number(PositiveInt), default=320, help="of a frame (default: 320)")
    return parser.parse_args()


def folders(arguments: list[str]) -> dict[str, str]:
    """Title -> folder. Raises ConfigError if two have one title."""
    found: dict[str, str] = {}
    for argument in arguments:
        title, equals, folder = argument.partition("=")
        if not equals or Path(argument).is_dir():
            path = Path(argument).absolute()
            title, folder = (path.parent.name if path.name == "labels" else path.name), argument
        if title in found:
            raise ConfigError(f"two folders with the title {title}", "titles that differ", "give TITLE=FOLDER")
        found[title] = folder
    return found


def class_names(arguments: list[str] | None) -> list[str] | None:
    """The names that are given, or those of a folder."""
    if arguments is None or len(arguments) > 1 or not Path(arguments[0]).is_dir():
        return arguments
    found = read_classes_file(arguments[0])
    if found is None:
        raise ConfigError(f"--classes {arguments[0]}: no classes.json in it", "a folder with one", "check the path")
    return list(found[0])


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    names, places = class_names(args.classes), folders(args.labels)
    sizes = dict(number=args.number, columns=args.columns, width=args.width)
    shown = show_video(args.video, places, args.truth, names, args.reduce_zero_label, **sizes)
    for name, picture in (("sheet", shown.sheet), ("flicker", shown.flicker)):
        if picture is not None:
            path = args.out / f"{shown.name}_{name}.png"
            write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())
            cli.say(f"written: {path}")
    cli.say(f"{shown.num_frames} frames with labels")
    for title, share in shown.shares.items():
        cli.say(f"{title}: {100 * share:.2f} % of pixels flicker")


if __name__ == "__main__":
    cli.run(main)
