#!/usr/bin/env python
"""DAVIS or YouTube-VOS as downloaded -> DAVIS2SEG or YouTube2SEG with flow: python tools/prepare_davis.py DAVIS OUT."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis import cli
from mmseg.making.davis_layout import SPLITS, prepare_davis
from mmseg.making.flow import flow_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("source", help="folder of the download: JPEGImages, Annotations, and ImageSets or train/")
    parser.add_argument("out", help="folder to make, e.g. data/DAVIS2SEG")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, help="default: those that the download has lists for")
    parser.add_argument("--no-flow", action="store_true", help="frames and masks only")
    cli.add_flow(parser)
    args = parser.parse_args()
    needless = [name for name in ("flow", "weights", "updates") if getattr(args, name) != parser.get_default(name)]
    if args.no_flow and needless:
        parser.error(f"--{needless[0]} has no effect with --no-flow")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    device = distributed.init(**cli.placement(args.device))
    network = None if args.no_flow else flow_network(args.flow, args.weights, device, args.updates)
    counts = prepare_davis(args.source, args.out, network, args.splits, args.batch_size)
    print(f"{args.out}: " + ", ".join(f"{number} frames of {split}" for split, number in counts.items()))


if __name__ == "__main__":
    cli.run(main)
