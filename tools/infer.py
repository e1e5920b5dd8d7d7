#!/usr/bin/env python
"""Segment a video: python tools/infer.py VIDEO CONFIG CHECKPOINT --out DIR; or the data set of a config, as published:
python tools/infer.py --config CONFIG --checkpoint CHECKPOINT --output_dir DIR (see docs/testing.md, docs/hfan.md).
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.inference import init_segmentor, segment_video
from mmseg.apis.test_command import add_test_arguments, run_test, test_options
from mmseg.config import load_config
from mmseg.errors import ConfigError
from mmseg.making.flow import DEFAULT_FLOW, FLOW_NAMES, flow_network

_OF_DATA_SETS = ("--config", "--checkpoint", "--output_dir", "--output-dir", "--input_dir", "--input-dir")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Label maps and an overlay video for a video or a folder of pictures; with --config: masks for the "
        "data set of a config (--config CONFIG --help)"
    )
    parser.add_argument("video", help="video file, or folder of pictures in the order of their names")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file; 'none' takes the untrained network")
    parser.add_argument("--out", type=Path, required=True, help="folder for <video>/labels/*.png and the overlay")
    cli.add_device(parser)
    parser.add_argument("--aug-test", action="store_true", help="average over scales and flips")
    parser.add_argument("--no-overlay", action="store_true", help="write the label maps only")
    parser.add_argument(
        "--flow", choices=FLOW_NAMES, help=f"for models that look at optical flow (default: {DEFAULT_FLOW})"
    )
    parser.add_argument("--flow-weights", type=Path, help="RAFT's weights (default: torchvision's download)")
    parser.add_argument("--save", nargs="+", choices=("features",), default=(), help="heat maps of features (HFAN)")
    cli.add_options(parser)
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    if any(argument.partition("=")[0] in _OF_DATA_SETS for argument in sys.argv[1:]):
        infer_data_set()
        return
    args = parse_args()
    checkpoint = None if args.checkpoint.lower() == "none" else args.checkpoint
    device = distributed.init(**cli.placement(args.device))
    model = init_segmentor(args.config, checkpoint, device, args.options)
    if not model.takes_flow and (args.flow or args.flow_weights):
        raise ConfigError(
            f"--flow or --flow-weights with a {type(model).__name__}", "a model that looks at flow", "leave them out"
        )
    flow = flow_network(args.flow or DEFAULT_FLOW, args.flow_weights, device) if model.takes_flow else DEFAULT_FLOW
    wanted = dict(overlay=not args.no_overlay, flow=flow, features="features" in args.save)
    result = segment_video(model, args.video, args.out, args.aug_test, **wanted)
    print(f"{result.num_frames} frames: label maps in {result.labels}")
    if result.overlay is not None:
        print(f"overlay video: {result.overlay}")


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


if __name__ == "__main__":
    cli.run(main)
