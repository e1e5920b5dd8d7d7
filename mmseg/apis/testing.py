"""A test run as ``tools/test.py`` does it, and the validation of a training: from a config to scores and files."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmseg import distributed
from mmseg.apis.evaluation import joined_reports, write_confusion
from mmseg.apis.features import FeatureWriter
from mmseg.apis.inference import init_segmentor
from mmseg.config import require, with_data_sets_of_method
from mmseg.datasets import build_dataset
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.class_names import first_difference
from mmseg.datasets.results import chosen_metrics
from mmseg.engine.predict import stream_settings
from mmseg.engine.test import test_dataset
from mmseg.errors import ConfigError
from mmseg.evaluation import Evaluator
from mmseg.mmengine_names import Config
from mmseg.models.base import VideoModel
from mmseg.visualization import palette_table
from mmseg.writing.base import ResultOptions
from mmseg.writing.pictures import SheetCollector
from mmseg.writing.report_page import ReportPageWriter

logger = logging.getLogger("mmseg.apis")

_MASKS_LOOKED_AT = 20
_SHOWN = 4  # videos in the picture of a validation


@dataclass
class TestOptions(ResultOptions):
    """What a test run does and leaves behind.

    Attributes:
        names_of: whose class names are used where those of the checkpoint and of the data set differ; None: that is an
            error.
        aug_test: average over scales and flips.
        amp: type to compute in under autocast.
        progress: show a progress bar.
        overwrite: make prototypes again that exist already.
        metrics_if_labelled: what is evaluated, if `metrics` is None, where all videos have masks; else nothing is.
        report_page: HTML file with scores, curves and the worst frames; None: none.
        report_frames: how many frames it shows at most.
    """

    __test__ = False  # not a test case, whatever its name says

    names_of: Literal["checkpoint", "data"] | None = None
    aug_test: bool = False
    amp: torch.dtype | None = None
    progress: bool = True
    overwrite: bool = False
    metrics_if_labelled: Sequence[str] | None = None
    report_page: Path | None = None
    report_frames: int = 16


def test_model(
    cfg: Config, checkpoint: str | Path | None, device: torch.device, options: TestOptions
) -> list[Evaluator]:
    """Test a checkpoint on ``cfg.data.test``, or make prototypes where the head is one that makes them.

    Whatever ends it by an exception, Ctrl-C too, leaves nothing half-written.

    Args:
        cfg: a loaded config.
        checkpoint: weights; None tests the untrained network.
        device: of this process.
        options: what to write.

    Returns:
        The evaluators with all frames in the main process; none in the others, and where nothing is evaluated.

    Raises:
        SegError: bad input, before anything is written, or in a frame that the message names.
    """
    if checkpoint is None:
        torch.manual_seed(0)  # the same untrained network in every process and every run
    with distributed.together():
        options = replace(options, metrics=() if options.format_only else options.metrics)
        options.check()
        require(cfg, "model", "data.test")
        cfg = with_data_sets_of_method(cfg)
        dataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
        if options.metrics is None and options.metrics_if_labelled is not None:
            known = [name for name in options.metrics_if_labelled if name in dataset.metric_names]
            options.metrics = known if dataset.is_labelled() else ()
        chosen_metrics(dataset.metric_names, options.metrics)  # a wrong name is told before the checkpoint is read
        model = init_segmentor(cfg, checkpoint, device)
        check_num_classes(model, dataset, "data.test")
    if getattr(getattr(model, "decode_head", None), "generates_prototypes", False):
        _check_scored([], options)
        from mmseg.engine.prototypes import generate_prototypes

        generate_prototypes(model, dataset, checkpoint, options.overwrite, progress=options.progress)
        return []
    with distributed.together():
        settle_class_names(model, dataset, options)
        settings = stream_settings(cfg.data.test, model.test_cfg, model)
        evaluators = dataset.metrics(options)
        if evaluators:
            dataset.label_counts(_MASKS_LOOKED_AT)  # masks without labels are told before hours are spent
            options.report = partial(_report, evaluators, cfg, checkpoint, options)
        _check_scored(evaluators, options)
        writers = dataset.writers(options)
        if options.report_page is not None:
            writers.append(_page_writer(evaluators, cfg, checkpoint, dataset, options))
        if "features" in options.save:
            writers.append(_feature_writer(model, dataset, options))
    if options.format_only and distributed.is_main():
        logger.info("writing PNGs to %s", options.folder / dataset.submission)
    test_dataset(model, dataset, evaluators, writers, device, options.aug_test, options.progress, options.amp, settings)
    with distributed.together():
        if options.show_dir is not None and distributed.is_main():
            write_confusion(options.show_dir / "confusion.png", evaluators)
    if not distributed.is_main():
        return []
    _tell_of_nothing(evaluators)
    return evaluators


def _tell_of_nothing(evaluators: Sequence[Evaluator]) -> None:
    """Warn of evaluators that have no score at all, as those of masks of another kind."""
    for evaluator in evaluators:
        scores = evaluator.scores()
        if scores and not any(map(math.isfinite, scores.values())):
            first = next(iter(scores))
            logger.warning("%s is undefined, as are the scores beside it: %s", first, evaluator.why_undefined(first))


def _check_scored(evaluators: Sequence[Evaluator], options: TestOptions) -> None:
    """Raise ConfigError for a report of a test that scores nothing."""
    if options.report_page is not None and not evaluators:
        raise ConfigError(
            "--report of a run that scores nothing", "a test with an evaluation", "leave out --report, or give --eval"
        )


def _page_writer(
    evaluators: Sequence[Evaluator],
    cfg: Config,
    checkpoint: str | Path | None,
    dataset: VideoDataset,
    options: TestOptions,
) -> ReportPageWriter:
    run = _run(cfg, checkpoint, options)
    facts = {name: run[name] for name in ("config", "checkpoint", "precision")}
    facts["aug_test"] = "yes" if options.aug_test else None
    facts["data"] = cfg.data.test.get("type")
    facts |= {name: str(cfg.data.test[name]) for name in ("data_root", "split") if cfg.data.test.get(name)}
    table = palette_table(options.palette or dataset.PALETTE, dataset.num_classes or None)
    names = options.class_names or dataset.CLASSES or None
    return ReportPageWriter(options.report_page, evaluators, facts, table, names, options.report_frames)


def _feature_writer(model: VideoModel, dataset: VideoDataset, options: TestOptions) -> FeatureWriter:
    """Raises ConfigError for a model without such features, or if there is no place for them."""
    folder = options.output_dir or options.folder
    if folder is None:
        raise ConfigError("--save features with --out None", "a folder", "give --output_dir or --out")
    table = palette_table(options.palette or dataset.PALETTE, dataset.num_classes)
    return FeatureWriter(folder / "features", model, dataset.pipeline, table)


class Validation:
    """Scores a model on ``data.val`` while it is being trained.

    Args:
        cfg: a loaded config; ``evaluation.metric`` names metrics of the data set.

    Attributes:
        dataset: of ``data.val``.
        score_names: names of the scores that a call returns.
        metric_names: the metrics asked for, the most important one first.
        pictures: of the last call, in the main process: name -> (H, W, 3) uint8 BGR, where a hook of ``log_config``
            shows them.

    Raises:
        ConfigError: an unknown metric, or a section that cannot work.
        DataError: the data cannot be used.
    """

    def __init__(self, cfg: Config) -> None:
        self._section = cfg.data.val
        self.dataset = build_dataset(self._section, where="data.val", test_mode=True)
        wanted = (cfg.get("evaluation") or {}).get("metric")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        self.metric_names = chosen_metrics(self.dataset.metric_names, wanted, "evaluation.metric =")
        self._options = ResultOptions(out=None, metrics=self.metric_names)
        self.score_names = self.dataset.score_names(self._options)
        hooks = (cfg.get("log_config") or {}).get("hooks") or ()
        self._draws = any(hook["type"] in ("TensorboardLoggerHook", "WandbLoggerHook") for hook in hooks)
        self.pictures: dict[str, np.ndarray] = {}

    def __call__(self, model: VideoModel, amp: torch.dtype | None = None) -> dict[str, float]:
        """Test the model, log the tables, and return the scores by name; an empty dict in other than the main process.

        Args:
            model: goes on training afterwards.
            amp: type to compute in under autocast.
        """
        evaluators = self.dataset.metrics(self._options)
        settings = stream_settings(self._section, model.test_cfg, model)
        table = palette_table(self.dataset.PALETTE, self.dataset.num_classes or None)
        sheet = SheetCollector(table, self.dataset.CLASSES, _SHOWN)
        test_dataset(model, self.dataset, evaluators, [sheet] * self._draws, amp=amp, settings=settings)
        if not distributed.is_main():
            return {}
        self.pictures = {} if sheet.sheet is None else {"val/frames": sheet.sheet}
        for evaluator in evaluators:
            logger.info("validation\n%s", evaluator.tables())
        _tell_of_nothing(evaluators)
        return {name: value for evaluator in evaluators for name, value in evaluator.scores().items()}

    def shorten(self) -> None:
        """Keep the shortest video alone."""
        video = min(self.dataset.videos, key=lambda video: video.num_frames)
        self.dataset.videos = [replace(video, index=0)]

    def why_undefined(self, name: str) -> str:
        """Why a score can be undefined."""
        return " ".join(e.why_undefined(name) for e in self.dataset.metrics(self._options) if name in e.score_names)


def check_num_classes(model: VideoModel, dataset: VideoDataset, where: str) -> None:
    """Raise ConfigError unless the model has as many classes as the data set at `where`, if that has classes."""
    if dataset.num_classes and model.num_classes != dataset.num_classes:
        raise ConfigError(
            f"the model has {model.num_classes} classes, {where} has {dataset.num_classes}",
            "the same number",
            f"set model.decode_head.num_classes to that of the data set, or give {where} its class names "
            "(key `classes`, or classes.json in data_root)",
        )


def settle_class_names(model: VideoModel, dataset: VideoDataset, options: TestOptions) -> None:
    """Choose the class names and colours of tables and pictures.

    Raises:
        ConfigError: the checkpoint names other classes than the data set, or in another order, and
            ``options.names_of`` does not say whose names are right.
    """
    trained = model.trained_classes
    if trained is None or not dataset.num_classes:
        return
    options.palette = model.PALETTE
    if list(trained) == list(dataset.CLASSES):
        return
    if options.names_of == "checkpoint" and len(trained) == dataset.num_classes:
        options.class_names = trained
    elif options.names_of == "data":
        options.palette = dataset.PALETTE
    else:
        raise ConfigError(
            "the classes of the checkpoint are not those of data.test: "
            + first_difference(trained, dataset.CLASSES, "the checkpoint", "the data"),
            "the same classes in the same order, so that the scores stand beside the right names",
            "test on the data that the model was trained for; if only the spelling differs, say whose names to use: "
            "--class-names checkpoint or --class-names data",
        )


def _report(
    evaluators: Sequence[Evaluator], cfg: Config, checkpoint: str | Path | None, options: TestOptions
) -> dict[str, Any]:
    """The content of ``res.json``: what was tested and how, and all scores."""
    return {"run": _run(cfg, checkpoint, options), **joined_reports(evaluators)}


def _run(cfg: Config, checkpoint: str | Path | None, options: TestOptions) -> dict[str, Any]:
    """What was tested and how."""
    return {
        "config": str(cfg.filename) if cfg.filename else None,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "aug_test": options.aug_test,
        "precision": "float32" if options.amp is None else str(options.amp).removeprefix("torch."),
        "dilation": list(cfg.data.test.get("dilation", ())),
        **{key: cfg.data.test[key] for key in ("test_size",) if key in cfg.data.test},
    }
