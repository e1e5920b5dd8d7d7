"""What the published evaluation scripts of GSFM have in common: their flags, and the config that these stand for."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.propagation import Speed, propagate
from mmseg.config import load_config
from mmseg.data_entries import data_sets
from mmseg.errors import CheckpointError
from mmseg.mmengine_names import Config
from mmseg.values import PositiveInt

CONFIGS = Path(__file__).parents[2] / "local_configs" / "gsfm"


def evaluation_parser(description: str, top: int, include_last: bool = True) -> argparse.ArgumentParser:
    """A parser with the flags of all scripts.

    Args:
        description: of the script.
        top: default of ``--top``.
        include_last: whether it has ``--include_last``.
    """
    number = cli.number(PositiveInt)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="saves/GSFM.pth", help="checkpoint")
    parser.add_argument("--output", required=True, help="folder for the PNGs")
    parser.add_argument("--top", type=number, default=top, help="memory positions that are read (top-k)")
    parser.add_argument("--mem_every", type=number, default=3, help="frames between those that are remembered")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    if include_last:
        parser.add_argument("--include_last", action="store_true", help="remember the last frame, too")
    cli.add_device(parser)
    return parser


class Script:
    """A run of a script.

    Args:
        args: of a parser by :func:`evaluation_parser`.
        config: file in ``local_configs/gsfm``.
        data: what the flags say of ``data.test``.
    """

    def __init__(self, args: argparse.Namespace, config: str, data: Mapping[str, Any]) -> None:
        self.args, self.config, self.data = args, config, data

    def run(self) -> Speed:
        """Write the masks. Raises SegError for bad input."""
        args = self.args
        logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
        if not Path(args.model).exists():
            raise CheckpointError(f"--model {args.model}: no such file", "a checkpoint of GSFM", "give --model")
        settings = dict(top_k=args.top, mem_every=args.mem_every, include_last=getattr(args, "include_last", False))
        options = {f"model.test_cfg.{name}": value for name, value in settings.items()}
        options |= {f"data.test.{name}": value for name, value in self.data.items()}
        cfg = load_config(CONFIGS / self.config, options)
        torch.set_flush_denormal(True)
        device = distributed.init("none", **cli.placement(args.device))
        amp = None
        if args.amp:
            amp = torch.float16 if device.type == "cuda" else torch.bfloat16
        return propagate(cfg, args.model, args.output, device, amp)


def training_config(args: argparse.Namespace) -> Config:
    """The config of a stage with what the flags of ``train_gsfm.py`` say.

    Raises:
        ConfigError: a value that cannot be.
    """
    options = {
        "data.samples_per_gpu": args.batch_size,
        "data.workers_per_gpu": args.num_workers,
        "runner.max_iters": args.iterations,
        "lr_config.step": args.steps,
        "lr_config.gamma": args.gamma,
        "optimizer.lr": args.lr,
        "model.bootstrap.start_warm": args.start_warm,
        "model.bootstrap.end_warm": args.end_warm,
        "log_config.interval": 1 if args.debug else 100,
        "cudnn_benchmark": args.benchmark,
    }
    cfg = load_config(CONFIGS / f"stage{args.stage}.py", {key: v for key, v in options.items() if v is not None})
    if args.no_amp:
        cfg.amp = None
    if args.id == "NULL":
        cfg.checkpoint_config = None
    else:
        cfg.checkpoint_config.run_name = args.id
    roots = {
        "data/static": args.static_root, "data/BL30K": args.bl_root, "data/YouTube": args.yv_root,
        "data/DAVIS": args.davis_root,
    }  # fmt: skip
    for _, section in data_sets(cfg.data.train, "data.train"):
        for published, root in roots.items():
            if Path(section["data_root"]).is_relative_to(published):
                section["data_root"] = str(Path(root) / Path(section["data_root"]).relative_to(published))
                break
    return cfg
