"""Videos with masks of objects, some of which are shown to the model: what DAVIS and YouTube-VOS have in common."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Len

from mmseg import values
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.mask_inputs import tell_of_soft_mask
from mmseg.datasets.results import label_writers
from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.datasets.video_files import VideoFiles
from mmseg.datasets.video_layout import VIDEO, PictureFolders, named_roots
from mmseg.datasets.vspw import read_split
from mmseg.errors import ConfigError, DataError
from mmseg.images import FRAMES, LABEL_MAPS, read_frame, read_palette
from mmseg.structures import Frame
from mmseg.values import Palette
from mmseg.visualization import davis_palette
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.submission_zip import ZippedPngWriter

logger = logging.getLogger("mmseg.datasets")

MASKS = (".png",)

Folders = tuple[PictureFolders, PictureFolders]
IgnoredValues = Sequence[values.Byte | Annotated[Sequence[values.Byte], Len(3, 3)]]


@dataclass(frozen=True)
class ObjectVideoFiles(VideoFiles):
    """A video and its masks.

    Attributes:
        masks: number of a frame -> file of its mask, for the frames that have one.
        given: numbers of the frames whose mask is shown to the model.
        wanted: numbers of the frames that are to be predicted; None: all.
    """

    masks: Mapping[int, str] = field(default_factory=dict)
    given: frozenset[int] = frozenset()
    wanted: frozenset[int] | None = None


class ObjectVideoDataset(VideoDataset):
    """Videos for models that follow objects from given masks. For testing; :mod:`.vos_clips` is for training.

    Args:
        videos: in data-set order.
        pipeline: the test pipeline.
        palette_file: a PNG whose palette the results get; the standard one of DAVIS where there is none.
        single_object: all values of masks but 0 are one object.
        palette, ignored_values, colour_masks: see :class:`VideoDataset`; entry k of `palette` is the colour of object
            k, in masks if these hold colours, and in results.

    Raises:
        DataError: no videos, or one is listed twice.
    """

    background = 0
    inside_submission = ""  # folder of the videos in the folder of a submission

    def __init__(
        self,
        videos: Sequence[ObjectVideoFiles],
        pipeline: Sequence[Any] | None = None,
        palette_file: str | Path | None = None,
        single_object: bool = False,
        palette: Palette | None = None,
        ignored_values: IgnoredValues = (),
        colour_masks: bool = False,
    ) -> None:
        given = dict(palette=palette, ignored_values=ignored_values, colour_masks=colour_masks)
        super().__init__(videos, pipeline, test_mode=True, reduce_zero_label=False, **given)
        self.single_object = single_object
        self._warned: set[str] = set()
        table = read_palette(palette_file) if palette_file is not None and Path(palette_file).is_file() else None
        self.palette = davis_palette() if table is None else table  # (256, 3) uint8 RGB
        if palette is not None:
            self.palette = self.palette.copy()
            self.palette[: len(palette)] = palette

    def read_mask(self, video_index: int, number: int, size: tuple[int, int]) -> np.ndarray | None:
        """The object ids of a frame of this `size`, (H, W) uint8; None if it has no mask.

        A mask that is larger or smaller by one row or column, as happens in the wild, is resized with a warning.

        Raises:
            DataError: it cannot be read, holds colours, or has another size than its frame.
        """
        video = self.videos[video_index]
        path = video.masks.get(number)
        if path is None:
            return None
        stored = self.read_label(path)
        mask = fitted_mask(stored, size, path, warn=video.name not in self._warned)
        if stored.shape != size:
            self._warned.add(video.name)  # once for a video
        return (mask > 0).astype(np.uint8) if self.single_object else mask

    def frame(self, video_index: int, number: int) -> Frame:
        """See :meth:`VideoDataset.frame`; masks are truth, and given where they are shown to the model."""
        video = self.videos[video_index]
        path = video.frames[number]
        image = read_frame(path)
        mask = self.read_mask(video_index, number, image.shape[:2])
        if mask is not None and number in video.given and not self.single_object:
            tell_of_soft_mask(mask, video.masks[number])
        return Frame(
            number,
            Path(path).stem,
            image,
            given=mask if number in video.given else None,
            truth=mask if video.labels is not None else None,
            wanted=video.wanted is None or number in video.wanted,
            size=self.result_size(video_index),
            path=path,
            reload=partial(read_frame, path),
        )

    def frames(self, video_index: int) -> Iterator[Frame]:
        """See :meth:`VideoDataset.frames`. Raises DataError if no mask that is shown to the model has an object."""
        video, found = self.videos[video_index], False
        for frame in super().frames(video_index):
            found = found or (frame.given is not None and bool(frame.given.any()))
            if not found and video.given and frame.number == max(video.given):
                raise DataError(
                    f"video {video.name!r}: no object in any of the {len(video.given)} masks that are given, the last "
                    f"is {video.masks.get(frame.number)}",
                    "a mask with an object to follow",
                    "extract the masks again, or leave this video out of the split",
                )
            yield frame

    def result_size(self, video_index: int) -> tuple[int, int] | None:
        """(height, width) of the results of a video; None: that of its frames."""
        return None

    def png_writer(self, folder: Path) -> LabelPngWriter:
        """The writer of a submission's PNGs."""
        return LabelPngWriter(folder, self.palette)

    def writers(self, options: ResultOptions) -> list[ResultWriter]:
        """Those that `options` ask for; PNGs with the palette of the data set, and as a zip for the servers."""
        writers = label_writers(
            self, replace(options, format_only=False, save_png=False, palette=self.palette.tolist())
        )
        if options.format_only or options.save_png:
            folder = options.folder / self.submission
            writers.append(ZippedPngWriter(self.png_writer(folder / self.inside_submission), folder))
        return writers


@dataclass(frozen=True)
class ObjectLayout:
    """Where frames and masks of objects lie below a data root: arguments of data sets.

    Attributes:
        frames_dir, masks_dir, frame_suffix, mask_suffix, video_pattern: see :class:`PictureFolders`.
        resolution: folder in the first two, or ''.
        unlabelled: 'keep': a video of which only some frames have masks has `labels` for these.
    """

    frames_dir: str
    masks_dir: str
    frame_suffix: str | None
    mask_suffix: str | None
    video_pattern: str
    resolution: str = ""
    unlabelled: Literal["error", "keep"] = "error"

    def folders(self, root: Path) -> Folders:
        """Those of frames and masks below a data root."""
        frames_dir, masks_dir = (os.path.join(name, self.resolution) for name in (self.frames_dir, self.masks_dir))
        endings = MASKS if self.mask_suffix is None else LABEL_MAPS
        ends = self.frame_suffix, self.mask_suffix
        return (
            PictureFolders(root, frames_dir, FRAMES, *ends, self.video_pattern),
            PictureFolders(root, masks_dir, endings, *reversed(ends), self.video_pattern),
        )


def scan_objects(name: str, folders: Folders, keep_unlabelled: bool = False) -> ObjectVideoFiles:
    """The files of a video: two folder listings, no file is opened.

    Args:
        name: of the video.
        folders: of frames and masks, see :meth:`ObjectLayout.folders`.
        keep_unlabelled: a video of which only some frames have masks has `labels` for these.

    Raises:
        DataError: a folder is missing or empty, or a mask has no frame.
    """
    pictures, masks = (kind.of(name) for kind in folders)
    for kind, found in zip(folders, (pictures, masks)):
        if not found:
            raise DataError(
                f"video {name!r}: {'no such folder' if found is None else 'no pictures in'} {kind.folder(name)}",
                "a folder with frames and one with masks (.png) for every video",
                "extract the data set again, or check data_root, split, frames_dir and masks_dir",
            )
    numbers = {stem: number for number, stem in enumerate(pictures)}
    stray = [path for stem, path in masks.items() if stem not in numbers]
    if stray:
        raise DataError(
            f"video {name!r}: {len(stray)} masks without a frame, the first is {stray[0]}",
            f"a frame with the same stem in {folders[0].folder(name)}",
            "extract the frames again, one may be missing in the middle",
        )
    _warn_of_gaps(name, list(pictures))
    by_number = {numbers[stem]: path for stem, path in masks.items()}
    labels = tuple(by_number.get(number) for number in range(len(pictures)))
    if None in labels and not (keep_unlabelled and len(by_number) > 1):
        labels = None
    return ObjectVideoFiles(-1, name, len(pictures), tuple(pictures.values()), labels, by_number)


def _warn_of_gaps(name: str, stems: Sequence[str]) -> None:
    """Frames are followed in the order of their names, whatever is missing between them."""
    if len(stems) < 3 or not all(stem.isdecimal() for stem in stems):
        return
    numbers = list(map(int, stems))
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    gaps = [number for number, step in zip(numbers[1:], steps) if step > min(steps)]
    if gaps:
        logger.warning("video %r: %d frames may be missing, the first before frame %d", name, len(gaps), gaps[0])


def find_objects(
    data_root: str | Path | Sequence[str | Path], split: str | None, layout: ObjectLayout
) -> list[ObjectVideoFiles]:
    """The videos below one data root or several, see :func:`named_roots`, :class:`ObjectLayout`, :func:`scan_objects`.

    Args:
        data_root: of a data set.
        split: text file with the names of the videos, relative to each root; None takes all.
        layout: of each root.

    Raises:
        SegError: see these functions.
    """
    videos = []
    for prefix, root in named_roots(data_root, "a folder with frames and masks of objects").items():
        folders = layout.folders(root)
        names = listed_videos(root, split, folders[0])
        found = [scan_objects(name, folders, layout.unlabelled == "keep") for name in names]
        videos += [replace(video, name=prefix + video.name) for video in found]
    return videos


def listed_videos(root: Path, split: str | None, frames: PictureFolders) -> list[str]:
    """The videos that a text file below `root` names, or all that there are, sorted as text.

    Raises:
        ConfigError: `split` is no text file.
        DataError: it cannot be read, or there are no videos.
    """
    if split is not None:
        path = Path(os.path.normpath(root / split))
        if path.suffix != ".txt" and not path.exists():
            raise ConfigError(f"split={split!r}", "a text file with one video name a line", "fix split")
        return [line.name for line in read_split(path)]
    is_plain = frames.flat is None and VIDEO not in frames.template
    return video_names(frames.root / frames.template) if is_plain else sorted(frames.videos())


def video_names(folder: str | Path) -> list[str]:
    """The folders in a folder, sorted. Raises DataError if there is none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if Path(folder).is_dir() else []
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise DataError(f"{folder}: no videos", "a folder with one folder per video", "check data_root")
    return names
