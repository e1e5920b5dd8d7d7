#!/usr/bin/env python
"""A checkpoint to give away: python tools/publish_model.py DIR/best_mIoU_iter_N.pth OUT/cffm_b1.pth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.engine.publishing import publish


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of a training, or any file of weights")
    parser.add_argument("out", type=Path, help="the new file; the start of its SHA-256 is added to its name")
    parser.add_argument("--no-config", action="store_true", help="leave the config out, which has paths")
    parser.add_argument("--half", action="store_true", help="store float16, half the size; loading makes float32 of it")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    path, left_out = publish(args.checkpoint, args.out, with_config=not args.no_config, half=args.half)
    before, after = (file.stat().st_size / 2**20 for file in (args.checkpoint, path))
    cli.say(f"left out: {', '.join(left_out) or 'nothing'}")
    cli.say(f"written: {path} ({after:.1f} MiB of {before:.1f})")


if __name__ == "__main__":
    cli.run(main)
