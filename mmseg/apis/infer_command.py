"""``tools/infer.py`` and ``mmseg-infer``: any video, or many, with a checkpoint; or the data set of a config."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.exports import BACKENDS, exported_model, require_backend
from mmseg.apis.inference import init_segmentor
from mmseg.apis.many_videos import Row, finished_rows, segment_videos, settings_of, shard_of, table_of
from mmseg.apis.segmentation import KINDS, SegmentOptions, segment_video
from mmseg.apis.test_command import AMP, add_test_arguments, run_test, test_options
from mmseg.carried_config import config_for
from mmseg.config import load_config
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.datasets.sources import LazySource, video_sources
from mmseg.engine.interrupts import Interrupted
from mmseg.errors import ConfigError, DataError
from mmseg.exporting.export_folder import DESCRIPTION
from mmseg.exporting.exported_model import is_export
from mmseg.files import read_json
from mmseg.hub import is_address
from mmseg.images import read_palette
from mmseg.making.flow import DEFAULT_FLOW, FLOW_NAMES, flow_network
from mmseg.mmengine_names import Config
from mmseg.model_folder import FILE_ENDINGS, is_model_folder, locate
from mmseg.values import Fraction, NonNegativeInt, PositiveInt
from mmseg.visualization import davis_palette, default_palette
from mmseg.visualization.painting import OPACITY
from mmseg.writing.base import inside

logger = logging.getLogger("mmseg.apis")

_OF_DATA_SETS = ("--config", "--checkpoint", "--output_dir", "--output-dir", "--input_dir", "--input-dir")
_PALETTES = ("distinct", "davis")
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


def main() -> int | None:
    """The command, with the arguments of the command line; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    names = [argument.partition("=")[0] for argument in sys.argv[1:]]
    if any(name in _OF_DATA_SETS for name in names) and "--input" not in names:
        return infer_data_set()
    return infer_videos(parse_args())


def console() -> None:
    """The console command ``mmseg-infer``."""
    cli.run(main)


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
        "--palette", help=f"{', '.join(_PALETTES)}, a PNG with a palette, or a JSON list of RGB (default: the model's)"
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
    parser.add_argument("--amp", choices=sorted(AMP), help="compute in this type where that is safe")
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


def infer_videos(args: argparse.Namespace) -> int:
    """Segment one video or many; returns 1 if one of many could not be."""
    if (args.num_shards is None) != (args.shard is None):
        raise ConfigError("--num-shards without --shard, or the reverse", "both of them", "give both, or neither")
    device = distributed.init(args.launcher, **cli.placement(args.device))
    with distributed.together():
        sources = video_sources(args.videos, args.every, args.max_frames)
        _check_places(sources, args.out)
        several = len(sources) > 1 or distributed.world_size() > 1
        if args.mask is not None and len(sources) > 1:
            raise ConfigError(f"--mask for {len(sources)} videos", "one video", "give --masks DIR, with DIR/<video>/")
        if args.num_shards is not None:
            sources, several = shard_of(sources, args.num_shards, args.shard), True
        options = options_of(args)
        model, cfg = _model(args, device)
        options = _with_flow(args, model, options, device)
        options.check(model)
    settings = _settings(args, cfg, options)
    if args.compile:
        model.compile_parts()
    if several:
        return _infer_many(args, model, sources, options, settings)
    record = {"settings": settings_of(sources[0], settings, options.masks)}  # so that a run of many can keep it
    done = segment_video(model, sources[0], args.out, options, record=record)
    cli.say(f"{done.num_frames} frames in {done.seconds:.1f} s")
    cli.say(f"written: {', '.join(str(done.folder / name) for name in done.files)}")
    return 0


def _model(args: argparse.Namespace, device: torch.device) -> tuple[Any, Config]:
    """The model that the arguments name, and its config; of an export the part that speaks of frames."""
    if is_export(args.checkpoint):
        if args.config is not None:
            raise ConfigError(f"{args.config} beside an export", "the export alone", "leave the config out")
        model = exported_model(args.checkpoint, args.backend or BACKENDS[0], args.amp, args.options).to(device)
        return model, model.cfg
    require_backend(args.backend, args.checkpoint)
    cfg = config_for(args.config, args.checkpoint, args.options)
    if args.checkpoint.lower() != "none":
        return init_segmentor(cfg, args.checkpoint, device), cfg
    torch.manual_seed(0)  # the same untrained network in every process and every run
    return init_segmentor(cfg, None, device), cfg


def _check_places(sources: Sequence[LazySource], out: Path) -> None:
    """Raise ConfigError if results would stand among the pictures that they are made of, where they look like input."""
    for source in sources:
        folder = Path(os.path.abspath(inside(out, source.name)))
        pictures = source.video.source if isinstance(source.video.source, tuple) else ()
        if any(Path(os.path.abspath(path)).is_relative_to(folder) for path in pictures):
            raise ConfigError(
                f"--out {out}: the results of {source.name!r} would stand in {folder}, among its own frames",
                "another place",
                "give another --out",
            )


def _infer_many(
    args: argparse.Namespace,
    model: Any,
    sources: list[LazySource],
    options: SegmentOptions,
    settings: dict[str, Any],
) -> int:
    try:
        rows: list[Row] = segment_videos(model, sources, args.out, options, settings, args.overwrite)
    except (KeyboardInterrupt, Interrupted):
        if distributed.is_main():
            cli.say("\n" + table_of(list(finished_rows(sources, args.out))))
        raise
    finally:
        distributed.shutdown()
    if not distributed.is_main():
        return 0
    cli.say("\n" + table_of(rows))
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        cli.say(f"{failed} of {len(rows)} videos failed; the same command tries them again")
    return int(failed > 0)


def options_of(args: argparse.Namespace) -> SegmentOptions:
    """What the arguments say of the results. Raises ConfigError or DataError."""
    if args.no_overlay and args.kinds:
        raise ConfigError("--no-overlay with --save", "one of them", "leave --no-overlay out")
    kinds = tuple(kind for kind in KINDS if kind in args.kinds)
    unknown = tuple(kind for kind in args.kinds if kind not in KINDS)
    path = args.mask or args.masks
    if args.masks is not None and not args.masks.is_dir():
        raise DataError(f"--masks {args.masks}: no such folder", "a folder of masks", "give --mask for a single mask")
    if args.mask is not None and args.mask.is_dir():
        raise DataError(f"--mask {args.mask}: a folder", "one mask", "give --masks for a folder")
    return SegmentOptions(
        save=(*kinds, *unknown) or (("labels",) if args.no_overlay else SegmentOptions.save),
        opacity=args.opacity,
        legend=args.legend,
        side_by_side=args.side_by_side,
        palette=None if args.palette is None else palette_of(args.palette),
        aug_test=args.aug_test,
        amp=AMP.get(args.amp),
        flow=args.flow or (DEFAULT_FLOW if args.flow_weights else None),
        masks=None if path is None else GivenMasks(path),
    )


def palette_of(text: str) -> list[list[int]]:
    """The RGB colours that ``--palette`` names. Raises ConfigError or DataError."""
    if text == "distinct":
        return default_palette(254)
    if text == "davis":
        return davis_palette().tolist()
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f"--palette {text}", f"{', '.join(_PALETTES)}, or a file", "check the name")
    if path.suffix.lower() == ".png":
        table = read_palette(path)
        colours = None if table is None else table.tolist()
    else:
        colours = read_json(path)
    sound = isinstance(colours, list) and all(
        isinstance(colour, list) and len(colour) == 3 and all(type(v) is int and 0 <= v <= 255 for v in colour)
        for colour in colours
    )
    if not sound or not colours:
        raise DataError(
            f"--palette {text}: no colours", "a PNG with a palette, or [[R, G, B], ...]", "correct the file"
        )
    return colours


def _with_flow(args: argparse.Namespace, model: Any, options: SegmentOptions, device: torch.device) -> SegmentOptions:
    """The options with the network that computes flow, where its weights are in a file."""
    if args.flow_weights is None or not model.takes_flow:
        return options
    network = flow_network(args.flow or DEFAULT_FLOW, args.flow_weights, device)
    return replace(options, flow=network)


def _settings(args: argparse.Namespace, cfg: Config, options: SegmentOptions) -> dict[str, Any]:
    """What decides the results, as JSON, by the names of the arguments."""
    test = (cfg.get("data") or {}).get("test") or {}
    model = {"model": cfg.get("model"), "test_cfg": cfg.get("test_cfg"), "pipeline": test.get("pipeline")}
    streams = {name: value for name, value in test.items() if name not in ("pipeline", "data_root")}
    text = json.dumps({**model, "test": streams}, default=str, sort_keys=True)
    path = args.mask or args.masks
    painted = {"overlay", "video"} & set(options.save)
    return {
        "checkpoint": _content(_file_of(args.checkpoint)),
        "config": hashlib.sha256(text.encode()).hexdigest()[:16],
        "save": list(options.save),
        **(
            {
                "opacity": OPACITY if options.opacity is None else options.opacity,
                "legend": options.legend,
                "side_by_side": options.side_by_side,
            }
            if painted
            else {}
        ),
        "palette": _content(args.palette),
        "every": args.every,
        "max_frames": args.max_frames,
        "masks": None if path is None else str(path),
        "aug_test": args.aug_test,
        "amp": args.amp,
        "flow": args.flow,
        "flow_weights": _content(args.flow_weights),
    }


def _file_of(checkpoint: str) -> str | Path:
    """The file that tells a checkpoint from others; ``none`` stands for itself."""
    if is_export(checkpoint):
        return Path(checkpoint, DESCRIPTION)
    return checkpoint if checkpoint.lower() == "none" else locate(checkpoint)[0]


def _content(given: str | Path | None) -> str | None:
    """What tells a file from others, wherever it is; what is no file (``none``, ``davis``) stands for itself."""
    if given is None or not os.path.isfile(given):
        return given and str(given)
    digest = hashlib.sha256()
    with open(given, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]


def infer_data_set() -> None:
    """HFAN's published command."""
    parser = argparse.ArgumentParser(description="Object masks for data.test of a config")
    parser.add_argument("--config", default="local_configs/hfan/hfan.small.512x512.refine.py", help="config file")
    parser.add_argument(
        "--checkpoint", default="checkpoint/HFAN-s-converted.pth", help="checkpoint file; 'none' as for a video"
    )
    parser.add_argument(
        "--input_dir", "--input-dir", help="root of the test data (default: data.test.data_root of the config)"
    )
    add_test_arguments(parser, out="None")
    parser.set_defaults(output_dir=Path("output_path/hfan"))
    args = parser.parse_args()
    options = test_options(args, metrics_if_labelled=("DAVIS16",))
    root = {} if args.input_dir is None else {"data.test.data_root": args.input_dir}
    run_test(args, load_config(args.config, {**args.options, **root}), options)
