"""What every writer of results is, and what a user can ask for.

A writer sees every result once, in frame order within a video; the videos of a process come in data-set order. Nothing
is kept in memory beyond the frame, what is complete appears under its name at once, and a run that breaks off, however
it does, leaves nothing half-written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmseg.errors import ConfigError, DataError
from mmseg.structures import Result, Video

logger = logging.getLogger("mmseg.writing")

_NAMED_AT_MOST = 5


class ResultWriter:
    """Base of the writers; every method may be left as it is.

    All methods are called in every process, each with its own videos. A failure of one process in :meth:`start` or
    :meth:`finish` is to be raised by all of them (:func:`mmseg.distributed.together`).
    """

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        """The run begins; `owners` is the rank that tests each video."""

    def begin_video(self, video: Video) -> None:
        """The next results belong to this video."""

    def add(self, result: Result) -> None:
        """Write one result. Unwanted frames have none; its ``labels`` are None where there is nothing to say."""

    def end_video(self) -> None:
        """The video is complete."""

    def finish(self) -> None:
        """All videos of all processes are complete, and the metrics hold them."""

    def abort(self) -> None:
        """The run broke off: remove what is incomplete. Raises nothing."""


@dataclass
class ResultOptions:
    """What a test run leaves behind. A data set makes metrics and writers of it.

    Attributes:
        out: the pickle of label maps, other files go beside it; or, without a suffix, the folder of these other files,
            and no pickle. None writes none of them.
        metrics: names of the data set's metrics; None: the first of them; empty: no evaluation.
        metric_options: further arguments of the data set's evaluators.
        format_only: write the submission PNGs and do not evaluate.
        save_png: write the PNGs beside the evaluation.
        show_dir: folder for overlay videos and a contact sheet.
        show: show the overlays in a window.
        output_dir: folder for paintings of object masks; the masks themselves go to ``<output_dir>-DAVIS-16``.
        opacity: of these paintings.
        save: 'features': heat maps of the features of every frame, below `output_dir`, or else beside `out`.
        tmpdir, gpu_collect: how the result of several processes is joined, see
            :class:`~mmseg.writing.label_pickle.LabelPickleWriter`.
        class_names: of the checkpoint, if they are to be used in place of the data set's.
        palette: RGB colours of the checkpoint, in label order.
        report: makes the JSON beside `out`, asked for when all metrics are complete; None: there is none.
    """

    out: Path | None = Path("work_dirs/res.pkl")
    metrics: Sequence[str] | None = None
    metric_options: Mapping[str, Any] = field(default_factory=dict)
    format_only: bool = False
    save_png: bool = False
    show_dir: Path | None = None
    show: bool = False
    output_dir: Path | None = None
    opacity: float = 1.0
    save: Sequence[str] = ()
    tmpdir: Path | None = None
    gpu_collect: bool = False
    class_names: Sequence[str] | None = None
    palette: Sequence[Sequence[int]] | None = None
    report: Callable[[], Any] | None = None

    def check(self) -> None:
        """Raise ConfigError for options that cannot work together."""
        if self.pickle is not None:
            check_pickle_path(self.pickle)
        elif self.out is None and (self.format_only or self.save_png):
            raise ConfigError(
                "--out None with --format-only or --save-png", "a file, the PNGs go beside it", "give --out"
            )
        if self.opacity < 1 and self.output_dir is None:
            raise ConfigError(
                f"--opacity {self.opacity:g} without --output_dir", "a folder for the paintings", "give --output_dir"
            )

    @property
    def pickle(self) -> Path | None:
        """Where the label maps go."""
        is_folder = self.out is None or not self.out.suffix or (not _is_pickle(self.out) and self.out.is_dir())
        return None if is_folder else self.out

    @property
    def mask_dir(self) -> Path | None:
        """Where the object masks of ``output_dir`` go."""
        return None if self.output_dir is None else self.output_dir.with_name(f"{self.output_dir.name}-DAVIS-16")

    @property
    def folder(self) -> Path | None:
        """Where everything else goes."""
        return self.out if self.pickle is None else self.pickle.parent

    @property
    def json(self) -> Path | None:
        """Where the scores go."""
        if self.out is None:
            return None
        return self.out / "res.json" if self.pickle is None else self.pickle.with_suffix(".json")


def check_pickle_path(path: str | Path) -> Path:
    """`path` as a Path. Raises ConfigError unless it ends in .pkl or .pickle."""
    path = Path(path)
    if not _is_pickle(path):
        raise ConfigError(
            f"--out {path}", "a file name that ends in .pkl or .pickle", f"use {path.with_suffix('.pkl')}"
        )
    return path


def _is_pickle(path: Path) -> bool:
    return path.suffix in (".pkl", ".pickle")


def inside(folder: str | Path, name: str, suffix: str = "") -> Path:
    """``<folder>/<name><suffix>``, for names that come with the data: of videos and of frames.

    Args:
        folder: which the path must not leave.
        name: one or more parts, joined by "/".
        suffix: is appended.

    Raises:
        DataError: the name is empty, absolute, or has parts that lead elsewhere.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or Path(name).is_absolute():
        raise DataError(
            f"{name!r} as the name of a result in {folder}",
            "the name of a file or folder, without '..' and not absolute",
            "rename the video or frame",
        )
    return Path(folder, *parts[:-1], parts[-1] + suffix)


def tell_of_leftovers(folder: str | Path, names: Iterable[str]) -> None:
    """Warn of what stays in `folder` although this run has not written it, lest it be taken for a result of this run.

    Args:
        folder: of the results.
        names: of the files or folders in question, relative to it.
    """
    names = sorted(names)
    if names:
        shown = ", ".join(names[:_NAMED_AT_MOST]) + (", ..." if len(names) > _NAMED_AT_MOST else "")
        logger.warning(
            "%s still holds %d of another run, which this one does not replace: %s", folder, len(names), shown
        )
