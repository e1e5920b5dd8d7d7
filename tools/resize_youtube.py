#!/usr/bin/env python
"""YouTube-VOS at 480 pixels, for training: python tools/resize_youtube.py data/YouTube/train data/YouTube/train_480p"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.making.resize_trees import resize_youtube


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="folder of JPEGImages and Annotations")
    parser.add_argument("target", help="folder to write to")
    args = parser.parse_args()
    print(f"{args.target}: {resize_youtube(args.source, args.target)} files")


if __name__ == "__main__":
    cli.run(main)
