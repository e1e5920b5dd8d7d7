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
from mmseg.apis.exports import exported_model, require_backend
from mmseg.apis.infer_arguments import PALETTES, parse_args
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
from mmseg.images import read_palette
from mmseg.making.flow import DEFAULT_FLOW, flow_network
from mmseg.mmengine_names import Config
from mmseg.model_folder import locate
from mmseg.models.layers.compiling import require_compiler
from mmseg.visualization import davis_palette, default_palette
from mmseg.visualization.painting import OPACITY
from mmseg.writing.base import inside

logger = logging.getLogger("mmseg.apis")

_OF_DATA_SETS = ("--config", "--checkpoint", "--output_dir", "--output-dir", "--input_dir", "--input-dir")


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
        if not is_export(args.checkpoint):  # which says itself that there is nothing to compile
            require_compiler(device)
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
        model = exported_model(args.checkpoint, _graph_backend(args), AMP.get(args.amp), args.options).to(device)
        return model, model.cfg
    require_backend(args.backend, args.checkpoint)
    cfg = config_for(args.config, args.checkpoint, args.options)
    if args.checkpoint.lower() != "none":
        return init_segmentor(cfg, args.checkpoint, device), cfg
    torch.manual_seed(0)  # the same untrained network in every process and every run
    return init_segmentor(cfg, None, device), cfg


def _graph_backend(args: argparse.Namespace) -> str | None:
    """What runs the graphs of an export; None where PyTorch runs a checkpoint."""
    return (args.backend or "onnx") if is_export(args.checkpoint) else None


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
        amp=None if is_export(args.checkpoint) else AMP.get(args.amp),  # its graphs know their type already
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
        raise ConfigError(f"--palette {text}", f"{', '.join(PALETTES)}, or a file", "check the name")
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
        "backend": _graph_backend(args),
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
