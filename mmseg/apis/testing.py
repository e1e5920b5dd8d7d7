"""A test run as ``tools/test.py`` does it: model and data of a config, result files, scores."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmseg import distributed
from mmseg.apis.inference import init_segmentor
from mmseg.config import require
from mmseg.datasets import build_dataset
from mmseg.datasets.base import VideoDataset
from mmseg.engine.predict import stream_settings
from mmseg.engine.test import test_dataset
from mmseg.errors import ConfigError, nearest
from mmseg.evaluation import VSPWEvaluator
from mmseg.models.base import VideoModel
from mmseg.visualization import palette_table
from mmseg.writing.pictures import ContactSheetWriter, OverlayVideoWriter, WindowWriter
from mmseg.writing.results import PickleWriter, PngWriter, ResultWriter, check_pickle_path, write_json

logger = logging.getLogger("mmseg.apis")

METRIC_NAMES = ("mIoU", "mDice")
_EVALUATOR_OPTIONS = ("all_windows", "ignore_void", "min_frames", "lengths", "good_threshold")
_WITHOUT_EFFECT = ("efficient_test",)  # frames are always evaluated one by one


@dataclass
class TestOptions:
    """What a test run leaves behind.

    Attributes:
        out: the pickle of label maps; None writes none. Other files go beside it.
        metrics: names of the data set's metrics, from mIoU and mDice; empty switches the evaluation off.
        metric_options: arguments of :class:`~mmseg.evaluation.VSPWEvaluator`.
        format_only: write the submission PNGs and do not evaluate.
        save_png: write the PNGs beside the evaluation.
        show_dir: folder for overlay videos and a contact sheet.
        show: show the overlays in a window.
        tmpdir, gpu_collect: how the result of several processes is joined, see :class:`PickleWriter`.
        aug_test: average over scales and flips.
        amp: type to compute in under autocast.
        progress: show a progress bar.
        overwrite: make prototypes again that exist already.
    """

    __test__ = False  # not a test case, whatever its name says

    out: Path | None = Path("work_dirs/res.pkl")
    metrics: Sequence[str] = ("mIoU",)
    metric_options: Mapping[str, Any] = field(default_factory=dict)
    format_only: bool = False
    save_png: bool = False
    show_dir: Path | None = None
    show: bool = False
    tmpdir: Path | None = None
    gpu_collect: bool = False
    aug_test: bool = False
    amp: torch.dtype | None = None
    progress: bool = True
    overwrite: bool = False

    def check(self) -> None:
        """Raise ConfigError for options that cannot work, before hours are spent."""
        if self.out is not None:
            check_pickle_path(self.out)
        elif self.format_only or self.save_png:
            raise ConfigError(
                "--out None with --format-only or --save-png", "a file, the PNGs go beside it", "give --out"
            )
        for name in self.metrics:
            if name not in METRIC_NAMES:
                raise ConfigError(
                    f"--eval {name}", f"{' or '.join(METRIC_NAMES)}, or None", nearest(name, METRIC_NAMES)
                )
        for name in self.metric_options:
            if name not in (*_EVALUATOR_OPTIONS, *_WITHOUT_EFFECT):
                raise ConfigError(
                    f"--eval-options {name}", f"one of {_EVALUATOR_OPTIONS}", nearest(name, _EVALUATOR_OPTIONS)
                )


def test_model(
    cfg: Config, checkpoint: str | Path | None, device: torch.device, options: TestOptions
) -> VSPWEvaluator | None:
    """Test a checkpoint on ``cfg.data.test``, or make prototypes where the head is one that makes them.

    Args:
        cfg: a loaded config.
        checkpoint: weights; None tests the untrained network.
        device: of this process.
        options: what to write.

    Returns:
        The evaluator with all frames in the main process; None in the others, and where nothing is evaluated.

    Raises:
        SegError: bad input, before anything is written, or in a frame that the message names.
    """
    options.check()
    require(cfg, "model", "data.test")
    if checkpoint is None:
        torch.manual_seed(0)  # the same untrained network in every process and every run
    model = init_segmentor(cfg, checkpoint, device)
    dataset = build_dataset({**cfg.data.test, "test_mode": True}, where="data.test")
    if model.num_classes != dataset.num_classes:
        raise ConfigError(
            f"the model has {model.num_classes} classes, the data set {dataset.num_classes}",
            "the same number",
            "set model.decode_head.num_classes to that of the data set",
        )
    if getattr(model.decode_head, "generates_prototypes", False):
        from mmseg.engine.prototypes import generate_prototypes

        generate_prototypes(model, dataset, checkpoint, options.overwrite, progress=options.progress)
        return None
    evaluate = bool(options.metrics) and not options.format_only
    if evaluate and any(video.labels is None for video in dataset.videos):
        raise ConfigError(
            f"evaluation of split {cfg.data.test.get('split')!r}, which has videos without masks",
            "masks for every video",
            "give --format-only, or --eval None",
        )
    settings = stream_settings(cfg.data.test, model.test_cfg, model)
    evaluator = make_evaluator(model, dataset, options) if evaluate else None
    writers = make_writers(model, dataset, options)
    if options.format_only and options.out is not None and distributed.is_main():
        logger.info("writing PNGs to %s", submission_folder(options.out))
    test_dataset(model, dataset, evaluator, writers, device, options.aug_test, options.progress, options.amp, settings)
    if evaluator is None or not distributed.is_main():
        return None
    if options.out is not None:
        write_json(options.out.with_suffix(".json"), report(evaluator, cfg, checkpoint, options))
    return evaluator


def make_evaluator(model: VideoModel, dataset: VideoDataset, options: TestOptions) -> VSPWEvaluator:
    """The evaluator of a data set, with names from the checkpoint."""
    arguments = {k: v for k, v in options.metric_options.items() if k not in _WITHOUT_EFFECT}
    return VSPWEvaluator(
        dataset.num_classes,
        model.CLASSES or dataset.CLASSES,
        dataset.ignore_index,
        video_order=[video.name for video in dataset.videos],
        **arguments,
    )


def make_writers(model: VideoModel, dataset: VideoDataset, options: TestOptions) -> list[ResultWriter]:
    """The writers that `options` ask for."""
    table = palette_table(model.PALETTE or dataset.PALETTE, dataset.num_classes)
    names = model.CLASSES or dataset.CLASSES
    writers: list[ResultWriter] = []
    if options.out is not None:
        writers.append(PickleWriter(options.out, options.tmpdir, options.gpu_collect))
    if options.format_only or options.save_png:
        writers.append(PngWriter(submission_folder(options.out), table))
    if options.show_dir is not None:
        writers.append(OverlayVideoWriter(options.show_dir, table))
        writers.append(ContactSheetWriter(options.show_dir / "contact_sheet.png", table, names))
    if options.show and distributed.is_main():
        if has_display():
            writers.append(WindowWriter(table))
        else:
            logger.warning("--show: no display found, nothing is shown; --show-dir writes the same to files")
    return writers


def submission_folder(out: Path) -> Path:
    """Where the PNGs of a run with this ``--out`` go."""
    return out.parent / "result_submission"


def report(
    evaluator: VSPWEvaluator, cfg: Config, checkpoint: str | Path | None, options: TestOptions
) -> dict[str, Any]:
    """The content of ``res.json``: what was tested and how, and all scores."""
    run = {
        "config": str(cfg.filename) if cfg.filename else None,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "aug_test": options.aug_test,
        "precision": "float32" if options.amp is None else str(options.amp).removeprefix("torch."),
        "dilation": list(cfg.data.test.get("dilation", ())),
    }
    scores = evaluator.report()
    scores["mmseg_evaluate"] = evaluator.mmseg_evaluate(tuple(options.metrics))
    return {"run": run, **scores}


def has_display() -> bool:
    """Whether a window can be opened; OpenCV would end the process where it cannot."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
