"""What is scored and written of a test on a data set whose labels are classes, as its config and the user's say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmseg import distributed
from mmseg.errors import ConfigError, DataError, nearest
from mmseg.evaluation import Evaluator, VSPWEvaluator
from mmseg.registry import check_arguments
from mmseg.visualization import palette_table
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.label_pickle import LabelPickleWriter
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.pictures import ContactSheetWriter, OverlayVideoWriter, WindowWriter, has_display
from mmseg.writing.text import ReportWriter

if TYPE_CHECKING:
    from mmseg.datasets.base import VideoDataset

logger = logging.getLogger("mmseg.datasets")

_WITHOUT_EFFECT = ("efficient_test",)  # of published commands: frames are always evaluated one by one


def class_metrics(dataset: VideoDataset, options: ResultOptions) -> list[Evaluator]:
    """The evaluators of a data set of classes; none if `options` ask for none.

    Raises:
        ConfigError: an unknown metric or option.
        DataError: videos without masks.
    """
    names = chosen_metrics(dataset.metric_names, options.metrics)
    if not names:
        return []
    bare = [video.name for video in dataset.videos if video.labels is None]
    if bare:
        raise DataError(
            f"evaluation of videos without masks ({len(bare)} of {len(dataset.videos)}, the first is {bare[0]!r})",
            "masks for every video" + (f", in {dataset.masks_dir}" if dataset.masks_dir else ""),
            "correct masks_dir, or give --format-only, or --eval None, or another split",
        )
    given = dict(
        num_classes=dataset.num_classes,
        class_names=options.class_names or dataset.CLASSES,
        ignore_index=dataset.ignore_index,
        video_order=[video.name for video in dataset.videos],
        metrics=names,
        gaps=any(video.labelled is not None for video in dataset.videos),
    )
    return [build_evaluator(VSPWEvaluator, options.metric_options, given)]


def chosen_metrics(known: Sequence[str], wanted: Sequence[str] | None, where: str = "--eval") -> tuple[str, ...]:
    """The metrics that a user wants; the first one known if nothing is said.

    Raises:
        ConfigError: one of them is not known.
    """
    for name in wanted or ():
        if name not in known:
            expected = f"{' or '.join(known)}, or None" if known else "None: this data set has no scores of its own"
            raise ConfigError(f"{where} {name}", expected, nearest(name, known) if known else f"use {where} None")
    return tuple(known[:1] if wanted is None else wanted)


def build_evaluator(cls: type, options: Mapping[str, Any], given: Mapping[str, Any]) -> Evaluator:
    """An evaluator with what the data set gives it and what the user asks for.

    Args:
        cls: of the evaluator.
        options: the user's, checked against the constructor.
        given: arguments that are the data set's to say.

    Raises:
        ConfigError: an option that `cls` does not take, or that is none of the user's, or of a wrong type.
    """
    options = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    for name in options:
        if name in given:
            raise ConfigError(f"--eval-options {name}", "what the data set leaves open", "set it in the data set")
    return cls(**check_arguments(cls, options, "--eval-options", given))


def label_writers(dataset: VideoDataset, options: ResultOptions) -> list[ResultWriter]:
    """The writers that `options` ask for. Made in every process."""
    table = palette_table(options.palette or dataset.PALETTE, dataset.num_classes or None)
    writers: list[ResultWriter] = []
    if options.pickle is not None:
        writers.append(LabelPickleWriter(options.pickle, options.tmpdir, options.gpu_collect, options.report))
    elif options.report is not None and options.json is not None:
        writers.append(ReportWriter(options.json, options.report))
    if options.format_only or options.save_png:
        writers.append(LabelPngWriter(options.folder / dataset.submission, table))
    if options.show_dir is not None:
        names = options.class_names or dataset.CLASSES or None
        writers.append(OverlayVideoWriter(options.show_dir, table, dataset.frame_rate, names))
        writers.append(ContactSheetWriter(options.show_dir / "contact_sheet.png", table, names))
    if options.show and distributed.is_main():
        if has_display():
            writers.append(WindowWriter(table))
        else:
            logger.warning("--show: no display found, nothing is shown; --show-dir writes the same to files")
    return writers
