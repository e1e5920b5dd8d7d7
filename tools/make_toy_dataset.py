#!/usr/bin/env python
"""Write a small synthetic video data set: python tools/make_toy_dataset.py data/toy [--layout davis2seg|davis]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.making.flow import FLOW_NAMES
from mmseg.making.toy import generate_toy_dataset
from mmseg.making.toy_given import generate_toy_given
from mmseg.making.toy_objects import generate_toy_objects
from mmseg.making.toy_scene import TOY_CLASSES

ONLY_OF = {"test_videos": "vspw", "classes": "vspw", "flow": "davis2seg"}  # flag -> layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("root", nargs="?", default="data/toy", help="folder to make")
    parser.add_argument(
        "--layout",
        choices=["vspw", "davis2seg", "davis"],
        default="vspw",
        help="davis2seg: objects with flow; davis: objects with ids",
    )
    parser.add_argument("--videos", type=int, default=24, help="training videos")
    parser.add_argument("--val-videos", type=int, default=6, help="validation videos")
    parser.add_argument("--frames", type=int, default=24, help="frames of a video")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160), metavar=("H", "W"), help="of the frames")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--force", action="store_true", help="replace a toy data set of other settings")
    own = {"default": argparse.SUPPRESS}
    parser.add_argument("--test-videos", type=int, help="vspw: test videos (2)", **own)
    parser.add_argument("--classes", type=int, help=f"vspw: 3 to {len(TOY_CLASSES)} (the default)", **own)
    parser.add_argument("--flow", choices=FLOW_NAMES, help="davis2seg: how flow is computed (dis)", **own)
    args = parser.parse_args()
    given = {name: value for name, value in vars(args).items() if name in ONLY_OF}
    for name in given:
        if ONLY_OF[name] != args.layout:
            parser.error(f"--{name.replace('_', '-')} has no effect with --layout {args.layout}: leave it out")
    print(make(args, given))


def make(args: argparse.Namespace, own: dict[str, Any]) -> str:
    """Write the data set; what to say about it."""
    root, videos, val_videos = args.root, args.videos, args.val_videos
    common = {"frames": args.frames, "size": tuple(args.size), "seed": args.seed, "overwrite": args.force}
    if args.layout == "davis2seg":
        root = generate_toy_objects(root, videos, val_videos, **common, **own)
        return f"{root}: {videos} + {val_videos} videos (train, val) with flow and masks"
    if args.layout == "davis":
        root = generate_toy_given(root, videos, val_videos, videos, **common)
        return f"{root}: {videos} + {val_videos} videos (train, val) and {videos} still images"
    tests, classes = own.get("test_videos", 2), own.get("classes", len(TOY_CLASSES))
    root = generate_toy_dataset(root, videos, val_videos, tests, num_classes=classes, **common)
    return f"{root}: {videos} + {val_videos} + {tests} videos (train, val, test)"


if __name__ == "__main__":
    cli.run(main)
