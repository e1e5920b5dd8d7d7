"""The arguments of ``tools/test.py`` and what it does with them; ``tools/infer.py`` on a data set does the same."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import torch

from mmseg import distributed
from mmseg.apis import cli
from mmseg.apis.reports import add_report_arguments, report_path
from mmseg.apis.testing import TestOptions, test_model
from mmseg.engine.seeding import set_matmul_precision
from mmseg.mmengine_names import Config
from mmseg.values import Fraction

logger = logging.getLogger("mmseg.apis")

_WITHOUT_EFFECT = ("seed", "finetune_from", "fast_test")  # of published commands
AMP = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def add_test_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Give `parser` everything but config and checkpoint; `out` is the default of ``--out``."""
    parser.add_argument(
        "--out",
        default=out,
        help="pickled list of label maps (.pkl or .pickle), other files go beside it; a name without suffix is a "
        f"folder for these, and no pickle; 'None' writes none of them (default: {out})",
    )
    parser.add_argument(
        "--format-only", action="store_true", help="write submission PNGs beside --out, do not evaluate"
    )
    parser.add_argument("--save-png", action="store_true", help="write these PNGs and evaluate as well")
    parser.add_argument(
        "--eval",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="metrics of the data set, e.g. mIoU mDice (default: its first one); None switches the evaluation off",
    )
    parser.add_argument("--eval-options", nargs="+", action=cli.OptionsAction, default={}, metavar="KEY=VALUE")
    cli.add_options(parser)
    parser.add_argument(
        "--class-names",
        choices=("checkpoint", "data"),
        help="whose class names to use where those of the checkpoint and of the data differ",
    )
    parser.add_argument("--aug-test", action="store_true", help="average over scales and flips")
    parser.add_argument("--show", action="store_true", help="show the overlays in a window")
    parser.add_argument("--show-dir", type=Path, help="write overlay videos and a contact sheet there")
    parser.add_argument(
        "--output_dir",
        "--output-dir",
        type=Path,
        help="object masks: <output_dir>-DAVIS-16/<video>/<frame>.png, and paintings in <output_dir>",
    )
    add_report_arguments(parser)
    parser.add_argument("--opacity", type=cli.number(Fraction), default=1.0, help="of the paintings (default: 1)")
    parser.add_argument(
        "--save", nargs="+", choices=("features",), default=(), help="features/<video>/<frame>.jpg: heat maps (HFAN)"
    )
    parser.add_argument("--gpu-collect", action="store_true", help="send results to the main process, no shared folder")
    parser.add_argument("--tmpdir", type=Path, help="folder shared by all processes for parts of the result")
    parser.add_argument("--launcher", choices=distributed.LAUNCHERS, default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by old launchers")
    cli.add_device(parser)
    parser.add_argument("--amp", choices=sorted(AMP), help="compute in this type where that is safe")
    parser.add_argument("--overwrite", action="store_true", help="make prototypes again that exist already")
    for name in _WITHOUT_EFFECT:
        parser.add_argument(f"--{name.replace('_', '-')}", help="without effect")


def test_options(args: argparse.Namespace, **more: Any) -> TestOptions:
    """What the arguments ask for. Raises ConfigError for what cannot work together."""
    for name in _WITHOUT_EFFECT:
        if getattr(args, name) is not None:
            logger.warning("--%s %s has no effect in a test", name.replace("_", "-"), getattr(args, name))
    options = TestOptions(
        out=None if args.out.lower() == "none" else Path(args.out),
        metrics=() if [name.lower() for name in args.eval or ()] == ["none"] else args.eval,
        metric_options=args.eval_options,
        format_only=args.format_only,
        save_png=args.save_png,
        show_dir=args.show_dir,
        show=args.show,
        output_dir=args.output_dir,
        opacity=args.opacity,
        save=args.save,
        tmpdir=args.tmpdir,
        gpu_collect=args.gpu_collect,
        names_of=args.class_names,
        aug_test=args.aug_test,
        amp=AMP.get(args.amp),
        overwrite=args.overwrite,
        report_frames=args.report_frames,
        **more,
    )
    options.report_page = report_path(args.report, options.folder)
    options.check()
    return options


def run_test(args: argparse.Namespace, cfg: Config, options: TestOptions) -> None:
    """Test ``args.checkpoint`` as the arguments say, and print the tables."""
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    torch.set_flush_denormal(True)
    device = distributed.init(args.launcher, **cli.placement(args.device))
    try:
        torch.backends.cudnn.benchmark = bool(cfg.get("cudnn_benchmark", False))
        set_matmul_precision(cfg.get("float32_matmul_precision"))
        checkpoint = None if args.checkpoint.lower() == "none" else args.checkpoint
        evaluators = test_model(cfg, checkpoint, device, options)
        for evaluator in evaluators:
            cli.say(evaluator.tables() + "\n")
        if evaluators and options.out is not None:
            cli.say(f"written: {', '.join(str(path) for path in (options.pickle, options.json) if path is not None)}")
        if options.report_page is not None and distributed.is_main():
            cli.say(f"report: {options.report_page}")
        if options.output_dir is not None and distributed.is_main():
            cli.say(f"masks: {options.mask_dir}")
    finally:
        distributed.shutdown()
