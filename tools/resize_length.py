#!/usr/bin/env python
"""Large stills at 384 pixels, for stage 0 of GSFM: python tools/resize_length.py BIG data/static/BIG_small"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.making.resize_trees import resize_length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="folder of images and masks")
    parser.add_argument("target", help="folder to write to")
    args = parser.parse_args()
    print(f"{args.target}: {resize_length(args.source, args.target)} files")


if __name__ == "__main__":
    cli.run(main)
