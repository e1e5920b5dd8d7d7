#!/usr/bin/env python
"""Write a small synthetic video data set: python tools/make_toy_dataset.py data/toy [--layout davis2seg|davis]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.making.flow import FLOW_NAMES
from mmseg.making.toy import generate_toy_dataset
from mmseg.making.toy_given import generate_toy_given
from mmseg.making.toy_objects import generate_toy_objects
from mmseg.making.toy_scene import TOY_CLASSES


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
    parser.add_argument("--test-videos", type=int, default=2, help="test videos (vspw)")
    parser.add_argument("--frames", type=int, default=24, help="frames of a video")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160), metavar=("H", "W"), help="of the frames")
    parser.add_argument("--classes", type=int, default=len(TOY_CLASSES), help="3 to 8 (vspw)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--force", action="store_true", help="replace a toy data set of other settings")
    parser.add_argument("--flow", choices=FLOW_NAMES, default="dis", help="how flow is computed (davis2seg)")
    args = parser.parse_args()
    if args.layout == "davis2seg":
        root = generate_toy_objects(
            args.root, args.videos, args.val_videos, args.frames, tuple(args.size), args.seed, args.force, args.flow
        )
        print(f"{root}: {args.videos} + {args.val_videos} videos (train, val) with flow and masks")
        return
    if args.layout == "davis":
        root = generate_toy_given(
            args.root, args.videos, args.val_videos, args.videos, args.frames, tuple(args.size), args.seed, args.force
        )
        print(f"{root}: {args.videos} + {args.val_videos} videos (train, val) and {args.videos} still images")
        return
    root = generate_toy_dataset(
        args.root,
        args.videos,
        args.val_videos,
        args.test_videos,
        args.frames,
        tuple(args.size),
        args.classes,
        args.seed,
        args.force,
    )
    print(f"{root}: {args.videos} + {args.val_videos} + {args.test_videos} videos (train, val, test)")


if __name__ == "__main__":
    cli.run(main)
