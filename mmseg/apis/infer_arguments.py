"""The arguments of ``tools/infer.py`` for videos: videos, config and checkpoint are told apart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.exports import BACKENDS
from mmseg.apis.segmentation import KINDS
from mmseg.apis.test_command import AMP
from mmseg.exporting.exported_model import is_export
from mmseg.hub import is_address
from mmseg.making.flow import DEFAULT_FLOW, FLOW_NAMES
from mmseg.model_folder import FILE_ENDINGS, is_model_folder
from mmseg.values import Fraction, NonNegativeInt, PositiveInt

PALETTES = ("distinct", "davis")
_DESCRIPTION = """\
Segments videos: VIDEO ... [CONFIG] CHECKPOINT --out DIR.

A VIDEO is a file, a folder of pictures, of videos or of folders of pictures, a pattern ('clips/*.mp4'), a list (.txt,
one path a line), the number of a camera, or the address of a stream. Results stand in DIR/<video>/. CONFIG may be left
out: checkpoints of this package carry theirs. A CHECKPOINT is a file, a folder that save_pretrained or
tools/publish_model.py wrote, hf://user/name for one of the Hugging Face Hub, or the folder of an export
(tools/export.py). With --config instead: masks for the data set of a config (--config CONFIG --help)."""
_SAVE = """\
what is written, several with commas or spaces (default: labels,video).
labels: labels/<frame>.png, mode P, pixel = class number or object id.
overlay: overlay/<frame>.jpg, the colours over the frame.
video: <video>_overlay.mp4, the same as a video with the frame rate of the source.
probs: probs/<frame>.npz: probabilities (R, H, W) float16 and rows (R,), the class or object id of each; rows that stay
below 0.01 are left out.
json: <video>.json: time of every frame, and area and box of every class or object in it.
features: features/<frame>.jpg, heat maps (HFAN)."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the arguments for videos."""
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="VIDEO ... [CONFIG] CHECKPOINT; 'none': no weights")
    several = {"nargs": "+", "action": "extend", "default": []}  # given twice it means all of them
    parser.add_argument("--input", **several, metavar="VIDEO", help="videos; FILE is [CONFIG] CHECKPOINT then")
    parser.add_argument("--out", type=Path, required=True, help="results: OUT/<video>/")
    parser.add_argument("--save", **several, metavar="KIND", help=_SAVE)
    parser.add_argument("--no-overlay", action="store_true", help="labels only, if --save is not given")
    parser.add_argument("--opacity", type=cli.number(Fraction), help="of the colours in pictures (default: 0.45)")
    parser.add_argument("--legend", action="store_true", help="names of the classes beside the pictures")
    parser.add_argument(
        "--palette", help=f"{', '.join(PALETTES)}, a PNG with a palette, or a JSON list of RGB (default: the model's)"
    )
    parser.add_argument("--side-by-side", action="store_true", help="the frame to the left of its overlay")
    parser.add_argument("--every", type=cli.number(PositiveInt), default=1, metavar="N", help="take each N-th frame")
    parser.add_argument(
        "--max-frames", type=cli.number(PositiveInt), metavar="N", help="stop after N frames of a video"
    )
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument("--mask", type=Path, help="objects in the first frame, a PNG of ids (GSFM)")
    masks.add_argument(
        "--masks", type=Path, help="folder of such PNGs named as their frames, or of folders <video>/ of them"
    )
    parser.add_argument("--aug-test", action="store_true", help="average over scales and flips")
    parser.add_argument("--flow", choices=FLOW_NAMES, help=f"for models that look at it (default: {DEFAULT_FLOW})")
    parser.add_argument("--flow-weights", type=Path, help="RAFT's weights (default: torchvision's download)")
    cli.add_device(parser)
    parser.add_argument(
        "--amp", choices=sorted(AMP), help="compute in this type where that is safe (exports: openvino, bfloat16)"
    )
    parser.add_argument(
        "--backend", choices=["pytorch", *BACKENDS], help="what computes (default: onnx for exports, else pytorch)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network: a slow start, then faster (GPUs)")
    cli.add_options(parser)
    many = parser.add_argument_group("many videos")
    many.add_argument("--overwrite", action="store_true", help="make finished videos again")
    many.add_argument(
        "--num-shards", type=cli.number(PositiveInt), metavar="N", help="take one of N shares of the videos"
    )
    many.add_argument("--shard", type=cli.number(NonNegativeInt), metavar="I", help="which one, from 0")
    many.add_argument(
        "--launcher", choices=distributed.LAUNCHERS, default="none", help="set by dist_infer.sh and others"
    )
    many.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments for videos; `videos`, `config` and `checkpoint` are told apart."""
    parser = make_parser()
    args = parser.parse_intermixed_args(argv)
    args.videos, args.config, args.checkpoint = _split(parser, args.files, args.input)
    args.kinds = [kind for text in args.save for kind in text.replace(",", " ").split()]
    if args.save and not args.kinds:
        parser.error(f"--save {args.save[0]!r} names nothing; expected some of {', '.join(KINDS)}")
    return args


def _split(parser: argparse.ArgumentParser, files: list[str], inputs: list[str]) -> tuple[list[str], str | None, str]:
    """Videos, config and checkpoint: the last file is the checkpoint, a ``.py`` before it the config."""
    rest = list(files or inputs)
    if not rest or (not files and not _is_checkpoint(rest[-1])):
        parser.error("no checkpoint: give VIDEO ... [CONFIG] CHECKPOINT, or [CONFIG] CHECKPOINT --input VIDEO ...")
    checkpoint = rest.pop()
    config = rest.pop() if rest and rest[-1].endswith(".py") else None
    videos = rest if not (files and inputs) else inputs
    if files and inputs and rest:
        parser.error(f"{' '.join(rest)}: with --input only [CONFIG] CHECKPOINT stand by themselves")
    if not videos:
        parser.error("no video: give VIDEO ... [CONFIG] CHECKPOINT")
    return videos, config, checkpoint


def _is_checkpoint(name: str) -> bool:
    return name.endswith(FILE_ENDINGS) or name.lower() == "none" or is_address(name) or _is_folder(name)


def _is_folder(name: str) -> bool:
    return is_model_folder(name) or is_export(name)
