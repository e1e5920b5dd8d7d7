"""VSPW (Miao et al., CVPR 2021) and data sets laid out like it.

::

    <data_root>/train.txt  val.txt  test.txt     one video name a line
    <data_root>/data/<video>/origin/*.jpg        frames, in the order of their names
    <data_root>/data/<video>/mask/*.png          raw labels, same stem: 0 and 255 ignored, v is class v - 1
    <data_root>/classes.json                     names in label order, for other classes than the 124 of VSPW
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.clips import CFFM_DILATION, prototype_clip
from mmseg.datasets import vspw_classes
from mmseg.datasets.base import Video, VideoDataset
from mmseg.datasets.class_names import resolve_classes
from mmseg.errors import DataError
from mmseg.registry import DATASETS

PROTOTYPE_SPLIT = "train_val_generate_prototype"
_PICTURES = (".jpg", ".jpeg", ".png")


@DATASETS.register_module()
class VSPWDataset(VideoDataset):
    """VSPW, or any data set in its layout.

    Args:
        data_root: the folder that holds the split files.
        split: 'train', 'val' or the stem of any other split file; 'train_val_generate_prototype' joins train, val and
            test.
        pipeline, dilation, test_mode, reduce_zero_label, short_videos: see :class:`VideoDataset`.
        img_dir, ann_dir: accepted for official configs; without effect, the folder names are fixed.
        classes: names in label order; default: those of ``classes.json``, else the 124 of VSPW.
        palette: RGB colours in label order.
        num_classes: how many classes there must be.

    Raises:
        DataError: a split file, a video or a mask is missing; the message says which.
        ConfigError: arguments that contradict each other.
    """

    CLASSES = vspw_classes.CLASSES
    PALETTE = vspw_classes.PALETTE

    def __init__(
        self,
        data_root: str | Path,
        split: str = "train",
        pipeline: Sequence[Any] | None = None,
        dilation: Sequence[int] = CFFM_DILATION,
        img_dir: str | None = None,
        ann_dir: str | None = None,
        test_mode: bool = False,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        num_classes: int | None = None,
        reduce_zero_label: bool = True,
        short_videos: str = "error",
    ) -> None:
        self.data_root, self.split = Path(data_root), split
        if not self.data_root.is_dir():
            raise DataError(
                f"data_root {self.data_root} is no folder",
                "a folder with train.txt, val.txt and data/",
                "see data/README.md for where the data set goes, or set data_root",
            )
        self.prototypes = split == PROTOTYPE_SPLIT
        names, colours = resolve_classes(data_root, classes, palette, num_classes, (type(self).CLASSES, self.PALETTE))
        super().__init__(
            self._find_videos(), pipeline, dilation, test_mode, names, colours, reduce_zero_label, short_videos
        )

    def clip_items(self) -> list[tuple[str, list[int]]]:
        """See :class:`VideoDataset`; for the prototype split one clip of ten spread frames per video."""
        if self.prototypes:
            return [(video.name, prototype_clip(len(video.frames))) for video in self.videos]
        return super().clip_items()

    def _find_videos(self) -> list[Video]:
        # The labels of VSPW's test split are not public, and prototypes need none.
        optional = self.prototypes or self.split == "test"
        splits = ("train", "val", "test") if self.prototypes else (self.split,)
        return [
            scan_video(self.data_root, name, labels_optional=optional)
            for split in splits
            for name in read_split(self.data_root / f"{split}.txt", may_be_empty=self.prototypes)
        ]


def read_split(path: Path, may_be_empty: bool = False) -> list[str]:
    """The video names of a split file; white space around them and empty lines do not count.

    Raises:
        DataError: the file is missing, no text, or names no video.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"split file {path} cannot be read ({getattr(error, 'strerror', None) or error})",
            "a text file with one video name a line",
            "check data_root and split; see data/README.md",
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names and not may_be_empty:
        raise DataError(f"split file {path} names no video", "one video name a line", "fill it or use another split")
    return names


def scan_video(data_root: Path, name: str, labels_optional: bool = False) -> Video:
    """List the frames of a video and pair them with their masks; two folder listings, no file is opened.

    Names that start with a dot (left behind by macOS) and files that are no pictures do not count.

    Raises:
        DataError: a folder is missing or empty, or a frame has no mask.
    """
    folder = os.path.join(data_root, "data", name)
    origin, masks = os.path.join(folder, "origin"), os.path.join(folder, "mask")
    names = _list(origin)
    if names is None:
        raise DataError(
            f"video {name!r}: folder {origin} does not exist",
            "a folder with the frames of every video that the split file names",
            "extract the whole data set, or remove the line from the split file",
        )
    frames = sorted(n for n in names if n.lower().endswith(_PICTURES) and not n.startswith("."))
    if not frames:
        raise DataError(
            f"video {name!r}: no frames in {origin}", "pictures " + ", ".join(_PICTURES), "extract the video again"
        )
    paths = tuple(os.path.join(origin, frame) for frame in frames)
    present = _list(masks)
    if present is None and labels_optional:
        return Video(name, paths, None)
    available = set(present or ())
    labels = [os.path.splitext(frame)[0] + ".png" for frame in frames]
    missing = [label for label in labels if label not in available]
    if missing:
        raise DataError(
            f"video {name!r}: {len(missing)} of {len(frames)} frames without mask, the first is "
            f"{os.path.join(masks, missing[0])}",
            "a mask with the same stem for every frame",
            "extract the masks again, or remove frames without mask from the origin folder",
        )
    return Video(name, paths, tuple(os.path.join(masks, label) for label in labels))


def _list(folder: str) -> list[str] | None:
    """Names in a folder; None if there is no such folder."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror})", "a readable folder", "fix it") from error
