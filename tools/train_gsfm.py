#!/usr/bin/env python
"""Train GSFM with the flags of the published script: python tools/train_gsfm.py --id NAME --stage 0|3."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg import distributed
from mmseg.apis.cli import number, run
from mmseg.apis.gsfm_scripts import training_config
from mmseg.values import NonNegativeInt, PositiveFloat, PositiveInt

SEED = 14159265


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train GSFM; several processes by torchrun.")
    parser.add_argument("--id", default="NULL", help="name of the run, files go to saves/<id>; NULL keeps nothing")
    parser.add_argument("--stage", type=int, choices=(0, 1, 2, 3), default=0)
    parser.add_argument("--load_network", help="weights to start from, also in place of those of --load_model")
    parser.add_argument("--load_model", help="checkpoint of a run that is to go on")
    parser.add_argument("-b", "--batch_size", type=number(PositiveInt), help="of each process")
    parser.add_argument("-i", "--iterations", type=number(PositiveInt))
    parser.add_argument("--steps", type=number(PositiveInt), nargs="+", help="iterations at which the rate falls")
    parser.add_argument("--lr", type=number(PositiveFloat))
    parser.add_argument("--gamma", type=number(PositiveFloat), help="factor of the rate (default: 0.1)")
    parser.add_argument("--start_warm", type=number(NonNegativeInt))
    parser.add_argument("--end_warm", type=number(PositiveInt))
    parser.add_argument("--num_workers", type=number(NonNegativeInt), default=8)
    parser.add_argument("--no_amp", action="store_true", help="full precision")
    parser.add_argument("--benchmark", action="store_true", help="let cuDNN choose its algorithms by trying")
    parser.add_argument("--static_root", default="data/static")
    parser.add_argument("--bl_root", default="data/BL30K")
    parser.add_argument("--yv_root", default="data/YouTube")
    parser.add_argument("--davis_root", default="data/DAVIS")
    parser.add_argument("--debug", action="store_true", help="report every iteration")
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by old launchers")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = training_config(args)
    distributed.init("pytorch" if "RANK" in os.environ else "none")
    from mmseg.apis.training import train_segmentor  # only now: importing the models takes a while

    try:
        with tempfile.TemporaryDirectory() as nowhere:
            folder = Path(nowhere) if args.id == "NULL" else Path("saves") / args.id
            train_segmentor(
                cfg, folder, seed=SEED, replace_by=args.load_network, resume_from=args.load_model, validate=False
            )
    finally:
        distributed.shutdown()


if __name__ == "__main__":
    run(main)
