#!/usr/bin/env python
"""Pictures of optical flow for folders of frames: python tools/generate_flow.py --frames DIR --out DIR (docs/flow.md).

Made as those that HFAN was trained on; what is there already is left, so that a run that broke off goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis import cli
from mmseg.making.flow import flow_network
from mmseg.making.flow_files import generate_flow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--frames", required=True, help="<video>/<frame>.jpg, or <video>_<number>.jpg in one folder")
    parser.add_argument("--out", required=True, help="gets a picture of the same name for every frame")
    cli.add_flow(parser)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    network = flow_network(args.flow, args.weights, distributed.init(**cli.placement(args.device)), args.updates)
    made = generate_flow(args.frames, args.out, network, args.batch_size)
    print(f"{args.out}: {made} pictures of optical flow made, others were there")


if __name__ == "__main__":
    cli.run(main)
