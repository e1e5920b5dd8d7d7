"""``--report`` of the tools: its arguments, and reports of predictions that are on disk (of a test run:
:class:`~mmseg.writing.report_page.ReportPageWriter`)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from mmseg.apis import cli
from mmseg.apis.evaluation import label_maps
from mmseg.apis.object_evaluation import MaskScoring, StoredMasks
from mmseg.datasets.base import VideoDataset
from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import DAVIS16Evaluator, Evaluator, VideoSaliencyEvaluator
from mmseg.evaluation.frame_scores import WorstFrame, WorstFrames, worst_frames
from mmseg.image_trees import picture_tree
from mmseg.images import PICTURES, read_frame, read_mask
from mmseg.visualization import palette_table
from mmseg.visualization.report import ShownFrame, render_report
from mmseg.writing.report_content import frame_scores_of, report_content

logger = logging.getLogger("mmseg.apis")

FRAMES = 16
MOST_FRAMES = 50
_NO_IMAGES = "The images of the frames were not found ({}): truth and prediction are shown on grey."

Shown = Callable[[WorstFrame], ShownFrame]


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` ``--report`` and ``--report-frames``; see :func:`report_path`."""
    parser.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE.html",
        help="write all scores, tables, curves and the worst frames into one HTML file, which needs no network and no "
        "other file (default place: report.html beside --out, or here)",
    )
    parser.add_argument(
        "--report-frames",
        type=cli.number(Annotated[int, Ge(0), Le(MOST_FRAMES)]),
        default=FRAMES,
        metavar="N",
        help=f"frames that the report shows, at most {MOST_FRAMES}; each adds 50 to 100 KB (default: {FRAMES})",
    )


def report_path(report: Path | None, folder: Path | None) -> Path | None:
    """Where the report goes; `folder` is the one of ``--out``, if there is one.

    Raises:
        ConfigError: the name is none of a page: ``--report CONFIG CHECKPOINT`` would replace the config.
    """
    if report is None:
        return None
    if report == Path():
        return (folder or Path()) / "report.html"
    if report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--report {report}", "a name that ends in .html", "give it such a name, or put --report behind all else"
        )
    return report


def class_page(
    predictions: Path, dataset: VideoDataset, evaluators: Sequence[Evaluator], facts: Mapping[str, Any], frames: int
) -> str:
    """The report of stored label maps.

    Args:
        predictions: a folder with ``<video>/<frame>.png``, or a ``res.pkl``.
        dataset: what they have been scored on.
        evaluators: with all frames.
        facts: what to say of the run.
        frames: how many to show.
    """
    worst = _worst(evaluators, frames)
    places = {video.name: index for index, video in enumerate(dataset.videos)}
    maps = label_maps(predictions, dataset, {(places[frame.video], frame.number) for frame in worst.sorted()})
    table = palette_table(dataset.PALETTE, dataset.num_classes)
    notes: list[str] = []

    def shown(frame: WorstFrame) -> ShownFrame:
        place = places[frame.video], frame.number
        name = Path(dataset.videos[place[0]].frames[frame.number]).stem
        image = _image(lambda: dataset.load_frame(*place), notes)
        return ShownFrame.of(name, image, dataset.load_label(*place), maps[place])

    return _page(predictions, evaluators, facts, worst, shown, notes, table, dataset.CLASSES)


def mask_page(scoring: MaskScoring, evaluator: Any, facts: Mapping[str, Any], images: Path | None, frames: int) -> str:
    """The report of stored masks of objects.

    Args:
        scoring: what has been scored.
        evaluator: with all frames.
        facts: what to say of the run.
        images: folder of the frames; None: ``JPEGImages`` beside ``Annotations``, if they are there.
        frames: how many to show.

    Raises:
        DataError: `images` is given and holds none.
    """
    masks = StoredMasks.find(scoring.predictions, scoring.truth, scoring.protocol, scoring.videos, evaluator.inner)
    pictures = picture_tree(images, PICTURES, ("JPEGImages/480p", "480p", "JPEGImages")) if images else None
    grey = isinstance(evaluator, VideoSaliencyEvaluator)
    table = None if grey else palette_table(None, None)
    notes: list[str] = []

    def labels(path: Path, threshold: int | None) -> np.ndarray:
        mask = read_mask(path)
        if threshold is not None:
            return np.where(mask > threshold, 255, 0).astype(np.uint8)
        return (mask != 0).astype(np.uint8) if isinstance(evaluator, DAVIS16Evaluator) else mask

    def shown(frame: WorstFrame) -> ShownFrame:
        name, predicted, true = masks.videos[frame.video][frame.number]
        path = _beside(true) if pictures is None else pictures.get(frame.video, {}).get(name)
        image = _image(lambda: read_frame(path), notes) if path else _image(None, notes, f"{frame.video}/{name}")
        threshold = evaluator.truth_threshold if grey else None
        return ShownFrame.of(name, image, labels(true, threshold), labels(predicted, None))

    return _page(scoring.predictions, [evaluator], facts, _worst([evaluator], frames), shown, notes, table, None)


def _worst(evaluators: Sequence[Evaluator], frames: int) -> WorstFrames:
    """The worst frames by the first evaluator that has scores of frames."""
    scores = (frame_scores_of(evaluator, evaluator.report()) for evaluator in evaluators)
    return worst_frames(next(filter(None, scores), {}), frames)


def _page(
    predictions: Path,
    evaluators: Sequence[Evaluator],
    facts: Mapping[str, Any],
    worst: WorstFrames,
    shown: Shown,
    notes: list[str],
    table: np.ndarray | None,
    class_names: Sequence[str] | None,
) -> str:
    worst.show(shown)
    for note in notes:
        logger.warning(note)
    content = report_content(facts, evaluators, worst, table, class_names, notes)
    return render_report(f"Scores of {predictions}", content)


def _image(read: Callable[[], np.ndarray] | None, notes: list[str], name: str = "") -> np.ndarray | None:
    """A frame, or None and a note, once, if it cannot be read."""
    try:
        if read is not None:
            return read()
    except DataError as error:
        name = error.found
    if not notes:
        notes.append(_NO_IMAGES.format(name))
    return None


def _beside(mask: Path) -> Path | None:
    """The frame of a mask in the layout of DAVIS and YouTube-VOS."""
    parts = list(mask.parts)
    if "Annotations" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("Annotations")] = "JPEGImages"
    return next((path for suffix in PICTURES if (path := Path(*parts).with_suffix(suffix)).is_file()), None)
