#!/usr/bin/env python
"""A model to give away: as a file, python tools/publish_model.py DIR/best_mIoU_iter_N.pth OUT/cffm_b1.pth; as a folder
with config, weights and model card, ... OUT/cffm_b1; or as a repository of the Hugging Face Hub, ... hf://user/cffm-b1.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli, push_to_hub, save_pretrained
from mmseg.engine.publishing import is_file_name, publish
from mmseg.errors import ConfigError
from mmseg.hub import is_address
from mmseg.model_folder import CARD, FACTS, WEIGHTS

_OF_FILES = ("no_config",)
_OF_FOLDERS = ("config", "options", "name", "scores", "license", "overwrite")
_OF_REPOSITORIES = (*_OF_FOLDERS, "private", "message")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a training, any file of weights, or a shared folder")
    parser.add_argument(
        "out",
        help="NAME.pth: a file, to whose name the start of its SHA-256 is added; NAME: a folder with config.json, "
        "model.safetensors and README.md; hf://user/name: the same on the Hub (needs huggingface_hub, hf auth login)",
    )
    parser.add_argument("--half", action="store_true", help="store float16, half the size; loading makes float32 of it")
    parser.add_argument("--no-config", action="store_true", help="file: leave the config out, which has paths")
    folder = parser.add_argument_group("folder and hf://")
    folder.add_argument("--config", help="config file, for checkpoints that do not carry theirs")
    cli.add_options(folder)
    folder.add_argument("--scores", type=Path, metavar="RES.JSON", help="of tools/test.py, for the card")
    folder.add_argument("--license", help="identifier of the Hub, for the card: apache-2.0, cc-by-nc-4.0 ...")
    folder.add_argument("--name", help="title of the card (default: that of the folder or repository)")
    folder.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what a folder has; on the Hub: the card, too, which else stays",
    )
    folder.add_argument("--private", action="store_true", help="hf://: a new repository is private")
    folder.add_argument("--message", help="hf://: of the commit")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    if is_address(args.out):
        cli.say(f"uploaded: {push_to_hub(args.checkpoint, args.out, **_chosen(args, _OF_REPOSITORIES))}")
    elif is_file_name(args.out):
        chosen = _chosen(args, _OF_FILES)
        path, left_out = publish(args.checkpoint, args.out, "no_config" not in chosen, args.half)
        cli.say(f"left out: {', '.join(left_out) or 'nothing'}")
        cli.say(f"written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    else:
        folder = save_pretrained(args.checkpoint, args.out, **_chosen(args, _OF_FOLDERS))
        size = (folder / WEIGHTS).stat().st_size / 2**20
        cli.say(f"written: {folder}: {FACTS}, {WEIGHTS} ({size:.1f} MiB), {CARD}")


def _chosen(args: argparse.Namespace, taken: tuple[str, ...]) -> dict[str, object]:
    """The arguments that were given, and --half. Raises ConfigError for one that would be without effect."""
    given = {name for name in (*_OF_FILES, *_OF_REPOSITORIES) if getattr(args, name)}
    for name in sorted(given - {*taken}):
        raise ConfigError(
            f"--{name.replace('_', '-')} for {args.out}",
            "a file (NAME.pth), a folder (NAME) or a repository (hf://user/name) that it is for",
            "see --help, and choose another target or leave it out",
        )
    return {name: getattr(args, name) for name in (*sorted(given), *(("half",) if args.half else ()))}


if __name__ == "__main__":
    cli.run(main)
