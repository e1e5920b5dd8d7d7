#!/usr/bin/env python
"""GSFM on DAVIS-2016 with the flags of the published script: python tools/eval_davis_2016.py --output DIR."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.gsfm_scripts import Script, evaluation_parser


def main() -> None:
    parser = evaluation_parser("GSFM on DAVIS-2016: masks of val, of one object each.", top=20, include_last=False)
    parser.add_argument("--davis_path", default="data/DAVIS/2016", help="folder of JPEGImages and Annotations")
    args = parser.parse_args()
    print(Script(args, "davis2016_val.py", {"data_root": args.davis_path}).run().lines())


if __name__ == "__main__":
    cli.run(main)
