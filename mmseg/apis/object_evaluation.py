"""Scores stored masks of objects by the protocols of DAVIS, YouTube-VOS and video saliency."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmseg.apis.evaluation import warped_consistency
from mmseg.apis.youtube_meta import seen_categories, youtube_objects
from mmseg.errors import ConfigError, DataError, SegError
from mmseg.evaluation import (
    DAVIS16Evaluator,
    DAVIS17Evaluator,
    DAVIS17UnsupervisedEvaluator,
    Evaluator,
    PooledFramesEvaluator,
    VideoSaliencyEvaluator,
    VOSBenchmarkEvaluator,
    YouTubeVOSEvaluator,
)
from mmseg.evaluation.object_evaluator import GLOBAL_NAMES, ObjectEvaluator
from mmseg.files import make_folder, write_text
from mmseg.image_trees import MASKS, chosen, picture_tree, read_video_list
from mmseg.images import read_mask
from mmseg.worker_pool import run_in_processes

PROTOCOLS: dict[str, type[Evaluator]] = {
    "davis16": DAVIS16Evaluator,
    "davis17": DAVIS17Evaluator,
    "davis17-unsup": DAVIS17UnsupervisedEvaluator,
    "vos-benchmark": VOSBenchmarkEvaluator,
    "long-videos": DAVIS16Evaluator,
    "pooled": PooledFramesEvaluator,
    "youtube": YouTubeVOSEvaluator,
    "vsod": VideoSaliencyEvaluator,
}
"""Name on the command line -> what computes it."""

_INSIDE = ("Annotations/480p", "480p", "Annotations")
_NAMED_AT_MOST = 5


@dataclass
class StoredMasks:
    """Predictions and truth of the videos to be scored.

    Attributes:
        videos: video -> (name, predicted file, true file) of each frame with a truth; None for a prediction that does
            not count.
        predicted: video -> name and predicted file of each frame, also of those without a truth.
        not_scored: videos that are predicted and do not count.
    """

    videos: dict[str, list[tuple[str, Path | None, Path]]] = field(default_factory=dict)
    predicted: dict[str, dict[str, Path]] = field(default_factory=dict)
    not_scored: list[str] = field(default_factory=list)

    @classmethod
    def find(cls, predictions: Path, truth: Path, protocol: str, names: Path | None, inner: bool) -> StoredMasks:
        """Pair the files of two folders.

        Args:
            predictions, truth: ``<video>/<frame>.png`` or ``<video>_<number>.png``.
            protocol: of :data:`PROTOCOLS`.
            names: a list of the videos that count; None: all that have a truth.
            inner: whether the first and the last frame with a truth do not count.

        Raises:
            DataError: folders, videos or frames are missing.
        """
        true = picture_tree(truth, MASKS, _INSIDE)
        if names is not None:
            true = chosen(true, read_video_list(names), truth)
        found = picture_tree(predictions, MASKS, _INSIDE)
        missing = [name for name in true if name not in found]
        if missing:
            raise DataError(
                f"{predictions}: {len(missing)} of {len(true)} videos are missing: "
                + ", ".join(missing[:_NAMED_AT_MOST]),
                f"predictions for every video of {truth}",
                "predict them, or give --videos LIST with those that are to count",
            )
        masks = cls(
            predicted={name: found[name] for name in true}, not_scored=[name for name in found if name not in true]
        )
        lost: list[str] = []
        for name, frames in true.items():
            stems = list(frames)
            counted = stems[1:-1] if inner else stems[1:] if protocol == "youtube" else stems
            lost += [f"{name}/{stem}.png" for stem in counted if stem not in found[name]]
            masks.videos[name] = [(s, found[name].get(s) if s in counted else None, frames[s]) for s in stems]
        if lost:
            raise DataError(
                f"{predictions}: {len(lost)} predictions are missing: {', '.join(lost[:_NAMED_AT_MOST])}",
                f"one for each mask of {truth} that counts, of the same name",
                "predict these frames; names must be equal, 00005.png for 00005.png",
            )
        return masks

    @property
    def num_frames(self) -> int:
        return sum(len(frames) for frames in self.videos.values())


@dataclass(frozen=True)
class MaskScoring:
    """What is to be scored, by which protocol.

    Attributes:
        predictions, truth: folders, see :class:`StoredMasks`.
        protocol: of :data:`PROTOCOLS`.
        workers: processes that share the videos; 0 or 1 works in this one.
        videos: a list of the videos that count.
        all_frames, toolkit, pooled, truth_threshold: of the evaluators; None leaves one as it is.
        meta, seen: files that :func:`youtube_objects` and :func:`seen_categories` read.
        flow_dir, align_corners: for TC, see :func:`~mmseg.apis.evaluation.warped_consistency`.
        csv: folder for the tables of the DAVIS-2017 toolkit.
    """

    predictions: Path
    truth: Path
    protocol: str
    workers: int = 0
    videos: Path | None = None
    all_frames: bool | None = None
    toolkit: str | None = None
    pooled: bool | None = None
    truth_threshold: int | None = None
    meta: Path | None = None
    seen: Path | None = None
    flow_dir: Path | None = None
    align_corners: bool = False
    csv: Path | None = None

    def evaluator_settings(self) -> dict[str, Any]:
        """The arguments of the evaluator that were given.

        Raises:
            ConfigError: the protocol has no such setting, or needs one that is missing.
        """
        names = ("all_frames", "toolkit", "pooled", "truth_threshold")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        taken = inspect.signature(PROTOCOLS[self.protocol]).parameters
        youtube = self.protocol == "youtube"
        wrong = [name for name in given if name not in taken]
        wrong += [name for name in ("meta", "seen") if getattr(self, name) is not None and not youtube]
        if self.csv is not None and not issubclass(PROTOCOLS[self.protocol], ObjectEvaluator):
            wrong.append("csv")
        if wrong:
            raise ConfigError(
                f"--{wrong[0].replace('_', '-')} with --protocol {self.protocol}",
                "options of this protocol",
                "leave it out",
            )
        if youtube and self.seen is None:
            raise ConfigError(
                "--protocol youtube without --seen",
                "the categories of the training set",
                "give the meta.json of the training set, or a text file with one category a line",
            )
        return given


def score_masks(scoring: MaskScoring, progress: bool = True) -> tuple[Evaluator, dict[str, Any]]:
    """Score stored masks.

    Returns:
        The evaluator, all frames counted, and all numbers as plain JSON values.

    Raises:
        SegError: files are missing or do not fit, or the options do not go together.
    """
    cls, settings = PROTOCOLS[scoring.protocol], scoring.evaluator_settings()
    if scoring.protocol == "youtube":
        inner = False
        meta = scoring.meta or _beside(scoring.truth)
        settings["seen"] = seen_categories(scoring.seen)
    else:
        inner = cls(**settings).inner
    masks = StoredMasks.find(scoring.predictions, scoring.truth, scoring.protocol, scoring.videos, inner)
    if scoring.protocol == "youtube":
        settings["objects"] = youtube_objects(
            meta, {name: [stem for stem, *_ in frames] for name, frames in masks.videos.items()}
        )
    evaluator = evaluate_masks(masks, partial(cls, **settings), scoring.workers, progress)
    report = {
        "predictions": str(scoring.predictions),
        "truth": str(scoring.truth),
        "not_scored": masks.not_scored,
        **evaluator.report(),
    }
    if scoring.flow_dir is not None:
        files = masks.predicted  # TC knows no truth: also the frames without one, which lie between those with one
        frames = {name: list(own) for name, own in files.items()}
        metric = warped_consistency(
            lambda video, stem: read_mask(files[video][stem]), frames, scoring.flow_dir, 256, scoring.align_corners
        )
        report["temporal_consistency"] = metric.report()
    if scoring.csv is not None:
        write_davis_tables(scoring.csv, scoring.videos.stem if scoring.videos else "val", evaluator.compute())
    return evaluator, report


def _beside(truth: Path) -> Path:
    """The ``meta.json`` of a folder of masks: in it or in the one above."""
    found = [folder / "meta.json" for folder in (truth, truth.parent) if (folder / "meta.json").is_file()]
    if not found:
        raise DataError(
            f"no meta.json in {truth} or {truth.parent}", "the categories of all objects", "give --meta meta.json"
        )
    return found[0]


def evaluate_masks(
    masks: StoredMasks, make: Callable[..., Evaluator], workers: int = 0, progress: bool = True
) -> Evaluator:
    """Score stored masks; each file is read once.

    Args:
        masks: files of all videos.
        make: the evaluator's class, settings given; takes ``video_order``.
        workers: processes that share the videos; 0 or 1 works in this one.
        progress: show a bar.

    Raises:
        DataError: a mask cannot be read, does not fit, or holds what the protocol does not allow.
    """
    total = make(video_order=list(masks.videos))
    work = partial(_evaluate_video, masks.videos, make)
    with tqdm(total=masks.num_frames, unit="frame", desc="evaluate", disable=not progress) as bar:
        for name, part in zip(masks.videos, run_in_processes(work, list(masks.videos), workers)):
            total.merge(part)
            bar.update(len(masks.videos[name]))
    total.check_plausible()
    return total


def _evaluate_video(videos: dict, make: Callable[..., Evaluator], name: str) -> Evaluator:
    """An evaluator that has seen one video."""
    evaluator, frames = make(), videos[name]
    try:
        for number, (_, predicted, true) in enumerate(frames):
            truth = read_mask(true)
            evaluator.update(name, number, truth if predicted is None else read_mask(predicted), truth)
        evaluator.end_video(name)
    except SegError as error:
        where = re.search(r"(truth of |label of |)frame (\d+) of video", error.found)
        path = frames[int(where[2])][2 if where[1] else 1] if where else None
        raise type(error)(f"{path}: {error.found}" if path else error.found, error.expected, error.action) from error
    return evaluator


def write_davis_tables(folder: Path, set_name: str, found: Mapping[str, Any]) -> list[Path]:
    """The two tables of the DAVIS-2017 toolkit: global and per object, three digits.

    Args:
        folder: where they go.
        set_name: the set in the names of the files.
        found: what the evaluator computed.

    Returns:
        The files.

    Raises:
        WriteError: they cannot be written.
    """
    make_folder(folder)
    overall = [",".join(GLOBAL_NAMES), ",".join(f"{found[name]:.3f}" for name in GLOBAL_NAMES)]
    rows = ["Sequence,J-Mean,F-Mean"]
    rows += [f"{name},{row['J']['mean']:.3f},{row['F']['mean']:.3f}" for name, row in found["per_object"].items()]
    files = []
    for name, lines in ((f"global_results-{set_name}.csv", overall), (f"per-sequence_results-{set_name}.csv", rows)):
        files.append(folder / name)
        write_text(files[-1], "\n".join(lines) + "\n")
    return files
