#!/usr/bin/env python
"""GSFM on DAVIS-2017 with the flags of the published script: python tools/eval_davis.py --output DIR [--split val]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.gsfm_scripts import Script, evaluation_parser

SPLITS = {"val": ("davis2017_val.py", "trainval"), "testdev": ("davis2017_testdev.py", "test-dev")}


def main() -> None:
    parser = evaluation_parser("GSFM on DAVIS-2017: masks of val or test-dev.", top=50)
    parser.add_argument("--davis_path", default="data/DAVIS/2017", help="folder of trainval and test-dev")
    parser.add_argument("--split", choices=sorted(SPLITS), default="val")
    args = parser.parse_args()
    config, folder = SPLITS[args.split]
    print(Script(args, config, {"data_root": f"{args.davis_path}/{folder}"}).run().lines())


if __name__ == "__main__":
    cli.run(main)
