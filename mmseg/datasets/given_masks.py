"""Videos with masks of objects, some of which are shown to the model: what DAVIS and YouTube-VOS have in common."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.results import label_writers
from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.datasets.video_files import VideoFiles
from mmseg.errors import DataError
from mmseg.images import list_pictures, read_frame, read_mask, read_palette
from mmseg.structures import Frame
from mmseg.visualization import davis_palette
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.submission_zip import ZippedPngWriter

logger = logging.getLogger("mmseg.datasets")

_MASKS = (".png",)


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
    ) -> None:
        super().__init__(videos, pipeline, test_mode=True, reduce_zero_label=False)
        self.single_object = single_object
        self._warned: set[str] = set()
        table = read_palette(palette_file) if palette_file is not None and Path(palette_file).is_file() else None
        self.palette = davis_palette() if table is None else table  # (256, 3) uint8 RGB

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
        stored = read_mask(path)
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


def scan_objects(name: str, frames: str | Path, masks: str | Path) -> ObjectVideoFiles:
    """The files of a video: two folder listings, no file is opened.

    Args:
        name: of the video.
        frames, masks: folders with ``<frame>.jpg`` and ``<frame>.png``.

    Raises:
        DataError: a folder is missing or empty, or a mask has no frame.
    """
    pictures, pngs = list_pictures(frames), list_pictures(masks, _MASKS)
    for folder, found in ((frames, pictures), (masks, pngs)):
        if not found:
            raise DataError(
                f"video {name!r}: {'no such folder' if found is None else 'no pictures in'} {folder}",
                "a folder with frames (.jpg) and one with masks (.png) for every video",
                "extract the data set again, or check data_root and split",
            )
    numbers = {os.path.splitext(picture)[0]: number for number, picture in enumerate(pictures)}
    stray = [png for png in pngs if os.path.splitext(png)[0] not in numbers]
    if stray:
        raise DataError(
            f"video {name!r}: {len(stray)} masks without a frame, the first is {os.path.join(masks, stray[0])}",
            f"a frame with the same stem in {frames}",
            "extract the frames again, one may be missing in the middle",
        )
    _warn_of_gaps(name, [os.path.splitext(picture)[0] for picture in pictures])
    by_number = {numbers[os.path.splitext(png)[0]]: os.path.join(masks, png) for png in pngs}
    paths = tuple(os.path.join(frames, picture) for picture in pictures)
    complete = len(by_number) == len(paths)
    labels = tuple(by_number[number] for number in range(len(paths))) if complete else None
    return ObjectVideoFiles(-1, name, len(paths), paths, labels, by_number)


def _warn_of_gaps(name: str, stems: Sequence[str]) -> None:
    """Frames are followed in the order of their names, whatever is missing between them."""
    if len(stems) < 3 or not all(stem.isdecimal() for stem in stems):
        return
    numbers = list(map(int, stems))
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    gaps = [number for number, step in zip(numbers[1:], steps) if step > min(steps)]
    if gaps:
        logger.warning("video %r: %d frames may be missing, the first before frame %d", name, len(gaps), gaps[0])


def video_names(folder: str | Path) -> list[str]:
    """The folders in a folder, sorted. Raises DataError if there is none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if Path(folder).is_dir() else []
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise DataError(f"{folder}: no videos", "a folder with one folder per video", "check data_root")
    return names
