"""VSPW (Miao et al., CVPR 2021) and data sets laid out like it.

::

    <data_root>/train.txt  val.txt  test.txt     one video name a line
    <data_root>/data/<video>/origin/*.jpg        frames, in the natural order of their names (2.jpg before 10.jpg)
    <data_root>/data/<video>/mask/*.png          raw labels, same stem: 0 and 255 ignored, v is class v - 1
    <data_root>/classes.json                     names in label order, for other classes than the 124 of VSPW
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len

from mmseg import values
from mmseg.clips import CFFM_DILATION
from mmseg.datasets import vspw_classes
from mmseg.datasets.base import VideoDataset, VideoFiles
from mmseg.datasets.class_names import MAX_CLASSES, resolve_classes
from mmseg.errors import DataError
from mmseg.files import read_bytes
from mmseg.images import PICTURES, list_pictures
from mmseg.registry import DATASETS

PROTOTYPE_SPLIT = "train_val_generate_prototype"
_MASKS = (".png",)
_MAX_SPLIT_BYTES = 2**26


@DATASETS.register_module()
class VSPWDataset(VideoDataset):
    """VSPW, or any data set in its layout.

    Args:
        data_root: the folder that holds the split files.
        split: 'train', 'val' or the stem of any other split file; 'train_val_generate_prototype' joins train, val and
            test.
        pipeline, dilation, test_mode, reduce_zero_label, short_videos: see :class:`VideoDataset`.
        classes: names in label order; default: those of ``classes.json``, else the 124 of VSPW.
        palette: RGB colours in label order.
        num_classes: how many classes there must be.
        frame_rate: frames per second of the videos, and of the overlays of a test.

    Raises:
        DataError: a split file, a video or a mask is missing; the message says which.
        ConfigError: arguments that contradict each other.
    """

    CLASSES = vspw_classes.CLASSES
    PALETTE = vspw_classes.PALETTE

    def __init__(
        self,
        data_root: str | Path,
        split: Annotated[str, Len(1)] = "train",
        pipeline: Annotated[Sequence[Any], Len(1)] | None = None,
        dilation: values.Dilation = CFFM_DILATION,
        test_mode: bool = False,
        classes: Sequence[str] | None = None,
        palette: Sequence[Annotated[Sequence[values.Byte], Len(3, 3)]] | None = None,
        num_classes: Annotated[int, Ge(1), Le(MAX_CLASSES)] | None = None,
        reduce_zero_label: bool = True,
        short_videos: Literal["error", "drop"] = "error",
        frame_rate: values.PositiveFloat = 15.0,
    ) -> None:
        self.data_root, self.split, self.frame_rate = Path(data_root), split, frame_rate
        if not self.data_root.is_dir():
            raise DataError(
                f"data_root {self.data_root} is no folder",
                "a folder with train.txt, val.txt and data/",
                "see data/README.md for where the data set goes, or set data_root",
            )
        self.prototypes = split == PROTOTYPE_SPLIT
        names, colours = resolve_classes(data_root, classes, palette, num_classes, (type(self).CLASSES, self.PALETTE))
        super().__init__(
            self._find_videos(test_mode), pipeline, dilation, test_mode, names, colours, reduce_zero_label, short_videos
        )

    def _find_videos(self, each_once: bool) -> list[VideoFiles]:
        # The labels of VSPW's test split are not public, and prototypes need none.
        optional = self.prototypes or self.split == "test"
        splits = ("train", "val", "test") if self.prototypes else (self.split,)
        lines = [line for split in splits for line in read_split(self.data_root / f"{split}.txt", self.prototypes)]
        if each_once:
            _check_each_once(lines)
        return [scan_video(self.data_root, line.name, optional) for line in lines]


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


def scan_video(data_root: Path, name: str, labels_optional: bool = False) -> VideoFiles:
    """List the frames of a video and pair them with their masks; two folder listings, no file is opened.

    Raises:
        DataError: a folder is missing or empty, two files have the same stem, or a frame has no mask.
    """
    folder = os.path.join(data_root, "data", name)
    origin, masks = os.path.join(folder, "origin"), os.path.join(folder, "mask")
    frames = list_pictures(origin)
    if frames is None:
        raise DataError(
            f"video {name!r}: folder {origin} does not exist",
            "a folder with the frames of every video that the split file names",
            "extract the whole data set, or remove the line from the split file",
        )
    if not frames:
        raise DataError(
            f"video {name!r}: no frames in {origin}", "pictures " + ", ".join(PICTURES), "extract the video again"
        )
    paths = tuple(os.path.join(origin, frame) for frame in frames)
    present = list_pictures(masks, _MASKS)
    if present is None and labels_optional:
        return VideoFiles.of(name, paths)
    by_stem = {os.path.splitext(mask)[0]: mask for mask in present or ()}
    stems = [os.path.splitext(frame)[0] for frame in frames]
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise DataError(
            f"video {name!r}: {len(missing)} of {len(frames)} frames without mask, the first is "
            f"{os.path.join(masks, missing[0])}.png",
            "a mask with the same stem for every frame",
            "extract the masks again, or remove frames without mask from the origin folder",
        )
    return VideoFiles.of(name, paths, [os.path.join(masks, by_stem[stem]) for stem in stems])
