#!/usr/bin/env python
"""Operations and parameters of a model, part by part: python tools/get_flops.py CONFIG [--shape 480 853]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.config import load_config, require
from mmseg.engine.flops import count_operations, count_parameters
from mmseg.evaluation.tables import text_table
from mmseg.files import write_json
from mmseg.models import build_segmentor
from mmseg.values import PositiveInt

_GIGA, _MEGA = 1e9, 1e6


def parse_args() -> argparse.Namespace:
    number = cli.number(PositiveInt)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument(
        "--shape", nargs="+", type=number, default=[480, 480], metavar="H W", help="of a frame (default: 480 480)"
    )
    parser.add_argument("--objects", type=number, default=2, help="objects that are followed (GSFM; default: 2)")
    parser.add_argument("--memory-frames", type=number, default=12, help="frames in memory (GSFM; default: 12)")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    cli.add_options(parser)
    args = parser.parse_args()
    if len(args.shape) > 2:
        parser.error("argument --shape: one number for both sides, or height and width")
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.options)
    require(cfg, "model")
    model = build_segmentor({**cfg.model, "pretrained": None}, cfg.get("train_cfg"), cfg.get("test_cfg")).eval()
    parameters = count_parameters(model)
    count = count_operations(model, (args.shape[0], args.shape[-1]), args.objects, args.memory_frames)
    cli.say(f"{type(model).__name__}, frames of {count.size[0]}x{count.size[1]}: {count.what}\n")
    rows = [[name, _giga(value), _giga(count.streamed[name])] for name, value in count.parts.items()]
    rows.append(["total", _giga(sum(count.parts.values())), _giga(sum(count.streamed.values()))])
    cli.say(text_table(["part", "GMACs", "GMACs per frame of a stream"], rows))
    rows = [[name, f"{value / _MEGA:.3f}"] for name, value in parameters.items()]
    rows.append(["total", f"{sum(parameters.values()) / _MEGA:.3f}"])
    cli.say(f"\n{text_table(['part', 'parameters (M)'], rows)}")
    cli.say(
        "\nMultiply-additions of the matrix products and convolutions in the formulas of the paper; papers often call\n"
        "them FLOPs, a multiplication and an addition being two. Sampling, norms, spectra and resizing are not counted."
    )
    if args.json is not None:
        numbers = {"what": count.what, "size": count.size, "macs": count.parts, "macs_streamed": count.streamed}
        write_json(args.json, {"config": args.config, **numbers, "parameters": parameters})


def _giga(value: float) -> str:
    return f"{value / _GIGA:.3f}"


if __name__ == "__main__":
    cli.run(main)
