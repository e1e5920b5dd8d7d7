#!/usr/bin/env python
"""Speed and memory of models: python tools/benchmark.py CONFIG ... [--mode stream|train|video|memory|data|...]."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.inference import known_device
from mmseg.config import load_config, require
from mmseg.engine.benchmark import measure_memory, measure_stream, measure_train
from mmseg.engine.benchmark_growth import HEIGHT, HEIGHTS, growth_rows
from mmseg.engine.benchmark_job import Job, Row
from mmseg.engine.benchmark_loading import measure_loading
from mmseg.engine.benchmark_objects import config_follows_objects
from mmseg.engine.benchmark_tables import (
    TABLES,
    comparison,
    growth_plot,
    growth_table,
    overview_table,
    short_name,
    worst_case,
)
from mmseg.engine.benchmark_video import measure_video
from mmseg.engine.measure import in_own_process
from mmseg.errors import ConfigError
from mmseg.files import write_bytes, write_json
from mmseg.values import NonNegativeInt, PositiveInt

_MEASURES = {
    "stream": measure_stream,
    "train": measure_train,
    "video": measure_video,
    "memory": measure_memory,
    "data": measure_loading,
}
_FRAME = (480, 853)
_SIZES = {"train": (480, 480), "video": (480, 854), "data": (0, 0), "growth": (480, 852)}  # where it is no _FRAME
_REPEATS = {"stream": 10, "train": 3, "video": 300, "memory": 2000, "data": 10, "growth": 4}
_SMALL = {"size": (240, 426), "memory_frames": 4}  # of models that follow objects, with --mode growth: it takes minutes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Frames per second, times of the stages and peak memory")
    parser.add_argument("config", nargs="+", help="config files; several with --mode table and growth")
    parser.add_argument(
        "--mode",
        choices=[*_MEASURES, "table", "growth"],
        default="stream",
        help="streaming inference, a training step, a whole video file with decoding, the memory of the test loop "
        "along a video, the training data of the config with 0, 1 and 2 workers, one table with streams and training "
        "steps of all configs in several precisions, or how the cost of streams grows: with the frame, and with the "
        "classes, the clip, the objects, frames in memory and processes for the first config that has them",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=cli.number(PositiveInt),
        metavar=("H", "W"),
        help="frame (480 853; where --mode growth follows objects 240 426), training crop (480 480)",
    )
    parser.add_argument(
        "--frames",
        type=cli.number(PositiveInt),
        help="frames (in whole blocks), steps or batches measured (10, 3, 10; growth 4, video 300), length of the "
        "video of --mode memory (2000)",
    )
    parser.add_argument(
        "--clips", type=cli.number(NonNegativeInt), default=0, help="batch of a training (default: the config's)"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--amp", nargs="?", const="bfloat16", choices=["bfloat16", "float16"], help="mixed precision")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument(
        "--threads", type=cli.number(NonNegativeInt), default=0, help="CPU threads (default: PyTorch's choice)"
    )
    parser.add_argument(
        "--against-reference", action="store_true", help="measure the formulas of tests/reference as well"
    )
    number = cli.number(PositiveInt)
    parser.add_argument("--objects", type=number, help="objects that are followed (GSFM; default: 2)")
    parser.add_argument("--memory-frames", type=number, help="frames in memory (GSFM; default: 12, growth 4)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="seconds that the CPU works instead of those that pass, with --threads 1: for a machine that others use",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--plot", type=Path, help="draw the curves of --mode growth there, as a PNG")
    parser.add_argument(
        "--heights", type=number, nargs="+", metavar="H", help=f"of the frames of --mode growth ({_words(HEIGHTS)})"
    )
    cli.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check(args)
    if args.mode == "growth":
        show_growth(args)
        return
    if args.mode == "table":
        rows = [row for config in args.config for row in table_rows(args, config)]
        print(overview_table(rows))
        if args.json is not None:
            write_json(args.json, {"torch": torch.__version__, "rows": rows})
        return
    job = make_job(args, args.config[0], args.mode)
    rows = []
    if args.against_reference:
        repeats = job.repeats if args.mode == "data" else min(job.repeats, 3)
        rows = in_own_process(_MEASURES[args.mode], replace(job, reference=True, compile=False, repeats=repeats))
    rows = in_own_process(_MEASURES[args.mode], job) + rows
    print(TABLES[args.mode](rows))
    for line in [*comparison(rows), *worst_case(rows)]:
        print(line)
    if args.json is not None:
        write_json(args.json, {"config": args.config[0], "torch": torch.__version__, "rows": rows})


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError, before anything is measured, for configs, devices and flags that something is wrong with."""
    if len(args.config) > 1 and args.mode not in ("table", "growth"):
        raise ConfigError(f"{len(args.config)} configs with --mode {args.mode}", "one", "use --mode table or growth")
    if (args.plot or args.heights) and args.mode != "growth":
        raise ConfigError(f"--plot or --heights with --mode {args.mode}", "--mode growth", "leave them out")
    if args.against_reference and args.mode in ("growth", "memory", "video"):
        raise ConfigError(
            f"--against-reference with --mode {args.mode}", "the product alone", "use --mode stream for both"
        )
    if args.clips and args.mode not in ("train", "table", "data"):
        raise ConfigError(f"--clips with --mode {args.mode}", "--mode train, table or data", "leave it out")
    if args.amp and args.mode == "table":
        raise ConfigError("--amp with --mode table", "float32 and bfloat16, which it always measures", "leave it out")
    if args.mode == "data" and (args.size or args.amp or args.compile or args.device):
        raise ConfigError(
            "--size, --amp, --compile or --device with --mode data",
            "none of them: the data alone are made, as the config says",
            "change the config, as with --options data.train...",
        )
    args.device = args.device or ("cuda" if torch.cuda.is_available() and args.mode != "data" else "cpu")
    if args.amp == "float16" and args.device.split(":")[0] == "cpu":
        raise ConfigError("--amp float16 on a CPU", "bfloat16, which it would compute in", "write --amp bfloat16")
    known_device(args.device)
    untimed = args.mode in ("data", "memory", "video")
    if args.cpu_time and (args.device != "cpu" or args.threads != 1 or untimed):
        raise ConfigError(
            f"--cpu-time with --device {args.device} --threads {args.threads} --mode {args.mode}",
            "--mode stream, train, table or growth on one CPU thread",
            "leave --cpu-time out" if untimed else "add --device cpu --threads 1, or leave --cpu-time out",
        )
    following = [] if args.mode == "data" else [follows_objects(args, config) for config in args.config]
    if (args.objects or args.memory_frames) and not (any(following) and args.mode in ("stream", "table", "growth")):
        raise ConfigError(
            f"--objects or --memory-frames with --mode {args.mode} for {', '.join(args.config)}",
            "a stream of a model that follows objects (GSFM)",
            "leave them out: they would change nothing",
        )


def follows_objects(args: argparse.Namespace, config: str) -> bool:
    """Whether the model of a config has objects instead of classes."""
    cfg = load_config(config, args.options)
    require(cfg, "model")
    return config_follows_objects(cfg)


def show_growth(args: argparse.Namespace) -> None:
    """Measure how the cost of every config grows; a line on the way, then the table and the plot."""
    rows: list[Row] = []
    refused: list[str] = []
    for config in args.config:
        name, seen = short_name(config), {row["axis"] for row in rows} - {HEIGHT}
        small = {key: value for key, value in _SMALL.items() if getattr(args, key) is None}
        job = make_job(args, config, "growth", **(small if follows_objects(args, config) else {}))
        for row in growth_rows(job, args.heights or HEIGHTS, refused, passed_over=seen):
            rows.append(row)
            sys.stderr.write(f"{name}, {row['axis']} {row['value']}: {row['seconds']:.3f} s a frame\n")
            write_growth(args, rows, refused)  # now, as the next one may take its time
    write_growth(args, rows, refused)
    for line in refused:
        sys.stderr.write(f"left out: {line}\n")
    print(growth_table(rows))
    if args.plot is not None:
        write_bytes(args.plot, growth_plot(rows))


def write_growth(args: argparse.Namespace, rows: list[Row], refused: list[str]) -> None:
    """The figures so far, if they are wanted."""
    if args.json is not None:
        write_json(args.json, {"torch": torch.__version__, "rows": rows, "left_out": refused})


def make_job(args: argparse.Namespace, config: str, mode: str, **changes: Any) -> Job:
    """The job that the command line describes."""
    job = Job(
        config=config,
        options=args.options,
        size=tuple(args.size or _SIZES.get(mode, _FRAME)),
        device=args.device,
        amp=args.amp,
        repeats=args.frames or _REPEATS[mode],
        clips=args.clips,
        compile=args.compile,
        threads=args.threads,
        objects=args.objects or Job.objects,
        memory_frames=args.memory_frames or Job.memory_frames,
        cpu_time=args.cpu_time,
    )
    return replace(job, **changes)


def table_rows(args: argparse.Namespace, config: str) -> list[Row]:
    """Streams and training steps of a config: float32 and bfloat16, with the reference and --compile if asked for."""
    settings: list[dict[str, Any]] = [{"compile": False}, {"compile": False, "amp": "bfloat16"}]
    if args.compile:
        settings.append({})
    if args.against_reference:
        settings.append({"compile": False, "reference": True, "repeats": 2})
    rows = []
    for mode in ("stream", "train"):
        for changes in settings:
            rows += in_own_process(_MEASURES[mode], make_job(args, config, mode, **changes))
    sys.stderr.write(f"{config}: {len(rows)} measurements\n")
    return [{"config": config, **row} for row in rows]


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    cli.run(main)
