#!/usr/bin/env python
"""A model for where PyTorch is not: python tools/export.py [CONFIG] CHECKPOINT --out DIR [--size H W] writes ONNX
graphs, model.json and a runner that needs NumPy and onnxruntime (see docs/export.md).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.exports import FRAME_SIZE, export
from mmseg.apis.inference import init_segmentor
from mmseg.carried_config import config_for
from mmseg.evaluation.tables import text_table
from mmseg.exporting.onnx_graphs import OPSET, Graph
from mmseg.values import PositiveInt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="[CONFIG] CHECKPOINT; 'none': no weights")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--size",
        nargs=2,
        type=cli.number(PositiveInt),
        default=FRAME_SIZE,
        metavar=("H", "W"),
        help="of the frames; the input is what the test pipeline makes of them (default: %(default)s)",
    )
    parser.add_argument("--opset", type=cli.number(PositiveInt), default=OPSET, help="of ONNX (default: %(default)s)")
    cli.add_options(parser)
    args = parser.parse_intermixed_args()
    if len(args.files) > 2:
        parser.error(f"{' '.join(args.files)}: give [CONFIG] CHECKPOINT")
    args.config, args.checkpoint = [None, *args.files][-2:]
    return args


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    cfg = config_for(args.config, args.checkpoint, args.options)
    torch.manual_seed(0)  # as tools/infer.py does for 'none'
    model = init_segmentor(cfg, None if args.checkpoint.lower() == "none" else args.checkpoint)
    graphs = export(model, args.out, tuple(args.size), args.opset, lambda text: sys.stderr.write(f"{text} ...\n"))
    cli.say(table_of(graphs))
    cli.say(f"written: {args.out}")


def table_of(graphs: dict[str, Graph]) -> str:
    """Graph, inputs, outputs, size and the largest difference to PyTorch."""
    rows = [
        [
            name,
            _shapes(graph.inputs),
            _shapes(graph.outputs),
            f"{len(graph.data) / 2**20:.1f}",
            f"{graph.difference:.1e}",
        ]
        for name, graph in graphs.items()
    ]
    return text_table(["graph", "inputs", "outputs", "MiB", "largest difference"], rows)


def _shapes(tensors: dict[str, list[int | str]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in tensors.items())


if __name__ == "__main__":
    cli.run(main)
