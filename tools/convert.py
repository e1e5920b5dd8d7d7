#!/usr/bin/env python
"""Files of weights in other forms: python tools/convert.py OLD.pth NEW.safetensors [--config CONFIG]; --to official
makes NEW.pth what the released code of the config's system loads. Prints what became of every entry.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.engine.converting import FORMS, convert


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="OLD", help="of the official code, of ours, safetensors, a shared folder")
    parser.add_argument("target", metavar="NEW", type=Path, help="the new file: .pth or .safetensors")
    parser.add_argument(
        "--config",
        help="of the model, whose names are checked and which the new file carries (default: the one that OLD carries)",
    )
    cli.add_options(parser)
    parser.add_argument("--to", choices=FORMS, default="ours", help="whose code is to load it (default: ours)")
    parser.add_argument("--full", action="store_true", help="print entries that keep name and shape one by one, too")
    parser.add_argument("--overwrite", action="store_true", help="replace NEW")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")  # the table says what others warn of
    done = convert(args.source, args.target, args.config, args.options, args.to, args.overwrite)
    cli.say(done.table(args.full))
    cli.say(f"\n{done.summary()}")
    cli.say(f"written: {args.target} ({args.target.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    cli.run(main)
