#!/usr/bin/env python
"""GSFM on YouTube-VOS with the flags of the published script: python tools/eval_youtube.py --output DIR."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.gsfm_scripts import Script, evaluation_parser


def main() -> None:
    parser = evaluation_parser("GSFM on YouTube-VOS: masks for its server.", top=50)
    parser.add_argument("--yv_path", default="data/YouTube", help="folder of valid, test and all_frames")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--output_all", action="store_true", help="all frames, not only those that are scored")
    args = parser.parse_args()
    data = {
        "data_root": f"{args.yv_path}/{args.split}",
        "img_dir": f"../all_frames/{args.split}_all_frames/JPEGImages",
        "palette_file": "../valid/Annotations/0a49f5265b/00000.png",
        "all_frames": args.output_all,
    }
    Script(args, "youtube2019_val.py", data).run()


if __name__ == "__main__":
    cli.run(main)
