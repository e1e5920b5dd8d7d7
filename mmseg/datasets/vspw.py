"""VSPW (Miao et al., CVPR 2021) and data sets laid out like it.

::

    <data_root>/train.txt  val.txt  test.txt     one video name a line
    <data_root>/data/<video>/origin/*.jpg        frames, in the natural order of their names (2.jpg before 10.jpg)
    <data_root>/data/<video>/mask/*.png          raw labels, same stem: 0 and 255 ignored, v is class v - 1
    <data_root>/classes.json                     names in label order, for other classes than the 124 of VSPW

Folders, names and the meaning of masks can be others, by arguments.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len

from mmseg import values
from mmseg.clips import CFFM_DILATION
from mmseg.datasets import vspw_classes
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.class_names import MAX_CLASSES, resolve_classes
from mmseg.datasets.video_files import VideoFiles
from mmseg.datasets.video_layout import FLAT_NAMES, PictureFolders, named_roots, no_masks, scan_video
from mmseg.errors import DataError
from mmseg.files import read_bytes
from mmseg.images import FRAMES, LABEL_MAPS
from mmseg.registry import DATASETS

logger = logging.getLogger("mmseg.datasets")

PROTOTYPE_SPLIT = "train_val_generate_prototype"
_MAX_SPLIT_BYTES = 2**26


@DATASETS.register_module()
class VSPWDataset(VideoDataset):
    """VSPW, or any data set in its layout.

    Args:
        data_root: the folder that holds the split files; or a list of such, whose videos are then called
            ``<folder>/<video>``.
        split: 'train', 'val' or the stem of any other split file; 'train_val_generate_prototype' joins train, val and
            test; None takes all videos that there are.
        pipeline, dilation, test_mode, reduce_zero_label, short_videos: see :class:`VideoDataset`.
        classes: names in label order; default: those of ``classes.json``, else the 124 of VSPW.
        palette: RGB colours in label order.
        num_classes: how many classes there must be.
        frame_rate: frames per second of the videos, and of the overlays of a test.
        ignored_values: further values of masks that are ignored; RGB colours where masks hold colours.
        colour_masks: masks are pictures in the colours of the `palette` (that of ``classes.json``, if it is there).
        unlabelled: whether frames without mask are an 'error' or stay as references ('keep'). A video without any mask
            is fine in testing, as long as it is not scored.
        frames_dir, masks_dir, frame_suffix, mask_suffix, video_pattern: see :class:`PictureFolders`.

    Raises:
        DataError: a split file, a video or a mask is missing; the message says which.
        ConfigError: arguments that contradict each other.
    """

    CLASSES = vspw_classes.CLASSES
    PALETTE = vspw_classes.PALETTE

    def __init__(
        self,
        data_root: str | Path | Annotated[Sequence[str | Path], Len(1)],
        split: Annotated[str, Len(1)] | None = "train",
        pipeline: Annotated[Sequence[Any], Len(1)] | None = None,
        dilation: values.Dilation = CFFM_DILATION,
        test_mode: bool = False,
        classes: Sequence[str] | None = None,
        palette: values.Palette | None = None,
        num_classes: Annotated[int, Ge(1), Le(MAX_CLASSES)] | None = None,
        reduce_zero_label: bool = True,
        short_videos: Literal["error", "drop"] = "error",
        frame_rate: values.PositiveFloat = 15.0,
        ignored_values: Sequence[values.Byte | Annotated[Sequence[values.Byte], Len(3, 3)]] = (),
        colour_masks: bool = False,
        unlabelled: Literal["error", "keep"] = "error",
        frames_dir: values.Text = "data/{video}/origin",
        masks_dir: values.Text = "data/{video}/mask",
        frame_suffix: values.Text | None = None,
        mask_suffix: values.Text | None = None,
        video_pattern: values.Text = FLAT_NAMES,
    ) -> None:
        roots = named_roots(data_root, "a folder with train.txt, val.txt and data/")
        self.data_roots = tuple(roots.values())
        self.split, self.frame_rate, self.masks_dir = split, frame_rate, masks_dir
        self.prototypes = split == PROTOTYPE_SPLIT
        names, colours = resolve_classes(
            self.data_roots, classes, palette, num_classes, (type(self).CLASSES, self.PALETTE)
        )
        frames = dict(folder=frames_dir, suffix=frame_suffix, other_suffix=mask_suffix, pattern=video_pattern)
        masks = dict(folder=masks_dir, suffix=mask_suffix, other_suffix=frame_suffix, pattern=video_pattern)
        endings = (".png",) if mask_suffix is None else LABEL_MAPS
        videos = []
        for prefix, root in roots.items():
            kinds = (PictureFolders(root, suffixes=FRAMES, **frames), PictureFolders(root, suffixes=endings, **masks))
            found = self._find_videos(*kinds, unlabelled == "keep", test_mode)
            videos += [replace(video, name=prefix + video.name) for video in found]
        super().__init__(
            videos,
            pipeline,
            dilation,
            test_mode,
            names,
            colours,
            reduce_zero_label,
            short_videos,
            ignored_values,
            colour_masks,
        )

    def _find_videos(
        self, frames: PictureFolders, masks: PictureFolders, keep_unlabelled: bool, test_mode: bool
    ) -> list[VideoFiles]:
        """The videos below one root."""
        root = frames.root
        if self.split is None:
            names = frames.videos()
        else:
            splits = ("train", "val", "test") if self.prototypes else (self.split,)
            lines = [line for split in splits for line in self._read_split(root / f"{split}.txt")]
            if test_mode:
                _check_each_once(lines)
            names = [line.name for line in lines]
        # The labels of VSPW's test split are not public, and prototypes need none.
        needed = not (test_mode or self.prototypes or self.split == "test")
        alone: list[str] = []
        videos = [scan_video(name, frames, masks, keep_unlabelled, needed, alone) for name in names]
        if alone:
            logger.warning(
                "%d masks without frame, the first is %s: where frames are missing, those before and after are taken "
                "for neighbours",
                *(len(alone), alone[0]),
            )
        if needed and not any(video.mask_files for video in videos):
            raise no_masks(names, frames, masks)
        return videos

    def _read_split(self, path: Path) -> list[SplitLine]:
        if not path.exists():
            raise DataError(
                f"split file {path} does not exist",
                "a text file with one video name a line",
                "write it, check data_root and split, or set split=None in the data set, which takes all videos",
            )
        return read_split(path, self.prototypes)


@dataclass(frozen=True)
class SplitLine:
    """A video name of a split file, and where it stands."""

    name: str
    path: Path
    number: int  # of the line, counted from 1

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


def read_split(path: Path, may_be_empty: bool = False) -> list[SplitLine]:
    """The video names of a split file; white space around them and empty lines do not count.

    A name may have folders in it (``train/a``), and is normalised (``./a`` is ``a``).

    Raises:
        DataError: the file is missing, no text, names no video, or names something outside the data folder.
    """
    try:
        text = read_bytes(path, _MAX_SPLIT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"split file {path} cannot be read as text ({error.reason})",
            "a UTF-8 text file with one video name a line",
            "check data_root and split; see data/README.md",
        ) from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                lines.append(SplitLine(video_name(line), path, number))
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error.found}", error.expected, error.action) from error
    if not lines and not may_be_empty:
        raise DataError(f"split file {path} names no video", "one video name a line", "fill it or use another split")
    return lines


def video_name(text: str) -> str:
    """The name of a video, normalised: without white space around it, ``./``, ``//`` and the like.

    Raises:
        DataError: a name that leads out of the folder of all videos, or holds control characters.
    """
    name = posixpath.normpath(text.strip())
    if name.startswith("/") or name in ("", ".") or name.split("/")[0] == ".." or any(ord(c) < 32 for c in name):
        raise DataError(
            f"{text.strip()!r} is no name for a video",
            "a name, perhaps with folders, relative to the folder of all videos and inside it",
            "remove '..', a leading '/' and control characters",
        )
    return name


def _check_each_once(lines: Sequence[SplitLine]) -> None:
    """Results are filed under the names of the videos."""
    seen: dict[str, SplitLine] = {}
    for line in lines:
        if line.name in seen:
            raise DataError(
                f"{line}: video {line.name!r} is listed twice (before in {seen[line.name]})",
                "each video once",
                "remove a line",
            )
        seen[line.name] = line
