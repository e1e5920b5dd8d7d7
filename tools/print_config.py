#!/usr/bin/env python
"""A config as it is read, with _base_ files and --options: python tools/print_config.py CONFIG [--key data.train]."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.config import check_config, load_config
from mmseg.errors import ConfigError, nearest
from mmseg.files import write_text
from mmseg.mmengine_names import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--key", help="print this entry alone, e.g. data.train or data.train.dataset.pipeline.2")
    parser.add_argument("--out", type=Path, help="write it there: a config file of its own, without _base_")
    cli.add_options(parser)
    return parser.parse_args()


def entry(config: Any, key: str) -> Any:
    """The value at a dotted key; parts are names of dicts and numbers of lists. Raises ConfigError if there is none."""
    node = config
    for depth, part in enumerate(key.split(".")):
        if isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict | Config) and part in node:
            node = node[part]
        else:
            place = ".".join(key.split(".")[:depth]) or "the config"
            known = range(len(node)) if isinstance(node, list | tuple) else node if hasattr(node, "keys") else ()
            raise ConfigError(f"--key {key}: no {part!r} in {place}", "an existing key", nearest(part, known))
    return node


def text_of(value: Any) -> str:
    """Python that makes `value`, laid out for reading."""
    if isinstance(value, dict):
        return Config(value).pretty_text
    name = "value"
    return Config({name: value}).pretty_text.removeprefix(f"{name} = ")


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    config = load_config(args.config, args.options)
    check_config(config, config.filename, tell=True)  # keys that have no effect are told on the standard error
    text = text_of(entry(config, args.key)) if args.key else config.pretty_text
    if args.out is None:
        cli.say(text.rstrip("\n"))
    else:
        write_text(args.out, text.rstrip("\n") + "\n")


if __name__ == "__main__":
    cli.run(main)
