#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py [CONFIG] CHECKPOINT [--out DIR/res.pkl] (see docs/testing.md)."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.test_command import add_test_arguments, run_test, test_options
from mmseg.carried_config import config_for


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Test a model on the videos of data.test")
    parser.add_argument("config", nargs="?", help="config file (default: the config that the checkpoint carries)")
    parser.add_argument(
        "checkpoint", help="file, shared folder or hf://user/name; 'none': the untrained network of CONFIG"
    )
    add_test_arguments(parser, out="work_dirs/res.pkl")
    return parser.parse_intermixed_args(argv)


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    options = test_options(args)
    run_test(args, config_for(args.config, args.checkpoint, args.options), options)


if __name__ == "__main__":
    cli.run(main)
