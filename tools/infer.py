#!/usr/bin/env python
"""Segment any video: python tools/infer.py VIDEO_OR_FOLDER CONFIG CHECKPOINT --out DIR (see docs/testing.md)."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.inference import init_segmentor, segment_video


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Label maps and an overlay video for a video or a folder of pictures")
    parser.add_argument("video", help="video file, or folder of pictures in the order of their names")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file; 'none' takes the untrained network")
    parser.add_argument("--out", type=Path, required=True, help="folder for <video>/labels/*.png and the overlay")
    cli.add_device(parser)
    parser.add_argument("--aug-test", action="store_true", help="average over scales and flips")
    parser.add_argument("--no-overlay", action="store_true", help="write the label maps only")
    cli.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    checkpoint = None if args.checkpoint.lower() == "none" else args.checkpoint
    device = distributed.init(**cli.placement(args.device))
    model = init_segmentor(args.config, checkpoint, device, args.options)
    result = segment_video(model, args.video, args.out, args.aug_test, overlay=not args.no_overlay)
    print(f"{result.num_frames} frames: label maps in {result.labels}")
    if result.overlay is not None:
        print(f"overlay video: {result.overlay}")


if __name__ == "__main__":
    cli.run(main)
