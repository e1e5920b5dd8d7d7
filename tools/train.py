"""Train a model. ``python tools/train.py CONFIG --work-dir DIR``, or several processes: ``tools/dist_train.sh``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from mmseg.apis.cli import add_options, number, run
from mmseg.config import load_config
from mmseg.errors import ConfigError
from mmseg.launchers import LAUNCHERS
from mmseg.sections import Seed
from mmseg.values import NonNegativeInt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model.")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--work-dir", help="folder for logs and checkpoints (default: ./work_dirs/<name of the config>)"
    )
    parser.add_argument("--load-from", help="checkpoint whose weights the training starts from")
    parser.add_argument("--finetune-from", help="the same, and only what the method fine-tunes is trained")
    parser.add_argument("--resume-from", help="checkpoint of a run that is to go on")
    parser.add_argument("--auto-resume", action="store_true", help="go on from the newest checkpoint in the work dir")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything: one iteration, one checkpoint, one video of the validation; nothing stays of it",
    )
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate on data.val")
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument("--gpus", type=number(NonNegativeInt), help="without a launcher: 1, or 0 for the CPU")
    gpu.add_argument("--gpu-ids", type=number(NonNegativeInt), nargs="+", help="without a launcher: number of the GPU")
    parser.add_argument(
        "--seed", type=number(Seed), help="of everything random (default: drawn, or that of the resumed run)"
    )
    parser.add_argument("--deterministic", action="store_true", help="reproducible algorithms on GPUs")
    add_options(parser)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by old launchers")
    return parser.parse_args()


def chosen_gpu(args: argparse.Namespace) -> int | None:
    """The GPU of a run without a launcher; -1 for the CPU, None for the default."""
    if args.gpus == 0:
        return -1
    if args.launcher == "none" and ((args.gpus or 1) > 1 or len(args.gpu_ids or []) > 1):
        raise ConfigError(
            "several GPUs without a launcher",
            "one process per GPU",
            f"./tools/dist_train.sh {args.config} {args.gpus or len(args.gpu_ids)} ...",
        )
    return args.gpu_ids[0] if args.gpu_ids else None


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.options)
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    gpu = chosen_gpu(args)
    from mmseg import distributed  # only now: importing PyTorch and the models takes a while

    distributed.init(args.launcher, (cfg.get("dist_params") or {}).get("backend"), gpu)
    from mmseg.apis.training import train_segmentor, try_training

    try:
        (try_training if args.dry_run else train_segmentor)(
            cfg,
            args.work_dir or cfg.get("work_dir") or Path("work_dirs") / Path(args.config).stem,
            seed=args.seed,
            deterministic=args.deterministic,
            validate=not args.no_validate,
            load_from=args.load_from,
            finetune_from=args.finetune_from,
            resume_from=args.resume_from,
            auto_resume=args.auto_resume,
        )
    finally:
        distributed.shutdown()


if __name__ == "__main__":
    run(main)
