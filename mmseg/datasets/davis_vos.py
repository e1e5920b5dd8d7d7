"""DAVIS 2016 and 2017 with the mask of the first frame given, and data sets laid out like them (MOSE, LVOS).

::

    <data_root>/JPEGImages/480p/<video>/00000.jpg      <data_root>/Annotations/480p/<video>/00000.png
    <data_root>/ImageSets/2017/val.txt                 one video name a line
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len

from mmseg.datasets.given_masks import (
    IgnoredValues,
    ObjectLayout,
    ObjectVideoDataset,
    ObjectVideoFiles,
    Palette,
    find_objects,
)
from mmseg.datasets.results import build_evaluator, chosen_metrics
from mmseg.datasets.video_layout import FLAT_NAMES
from mmseg.errors import DataError
from mmseg.evaluation import Evaluator
from mmseg.evaluation.davis import DAVIS16Evaluator, DAVIS17Evaluator
from mmseg.registry import DATASETS
from mmseg.values import Text
from mmseg.writing.base import ResultOptions
from mmseg.writing.label_png import LabelPngWriter
from mmseg.writing.object_masks import ObjectMaskWriter


@DATASETS.register_module()
class DAVISDataset(ObjectVideoDataset):
    """DAVIS: all objects are given on the first frame of a video.

    Args:
        data_root: the folder of JPEGImages and Annotations; or a list of such, whose videos are then called
            ``<folder>/<video>``.
        split: text file with the names of the videos, relative to `data_root`; None takes all folders.
        resolution: folder in JPEGImages and Annotations: '480p', 'Full-Resolution'; '' for data sets without (MOSE).
        single_object: all that is not background is one object (DAVIS-2016); results are masks of 0 and 255.
        palette_file: a PNG, relative to `data_root` (the first one), whose palette the results get.
        pipeline: the test pipeline.
        test_mode: always True; the clips of training are those of :class:`VOSClipDataset`.
        frames_dir, masks_dir, frame_suffix, mask_suffix, video_pattern: see :class:`PictureFolders`; the folder
            `resolution` is in the first two.
        ignored_values, colour_masks, palette: see :class:`ObjectVideoDataset`.
        unlabelled: 'keep': videos of which only some frames have masks are scored by these.

    Raises:
        DataError: the split file, a video, or the mask of its first frame is missing.
    """

    metric_names = ("DAVIS17", "DAVIS16")

    def __init__(
        self,
        data_root: str | Path | Annotated[Sequence[str | Path], Len(1)],
        split: Text | None = None,
        resolution: str = "480p",
        single_object: bool = False,
        palette_file: str | Path | None = None,
        pipeline: Annotated[Sequence[Any], Len(1)] | None = None,
        test_mode: Literal[True] = True,
        frames_dir: Text = "JPEGImages",
        masks_dir: Text = "Annotations",
        frame_suffix: Text | None = None,
        mask_suffix: Text | None = None,
        video_pattern: Text = FLAT_NAMES,
        ignored_values: IgnoredValues = (),
        colour_masks: bool = False,
        palette: Palette | None = None,
        unlabelled: Literal["error", "keep"] = "error",
    ) -> None:
        self.masks_dir = os.path.join(masks_dir, resolution)
        names = frame_suffix, mask_suffix, video_pattern
        videos = find_objects(data_root, split, ObjectLayout(frames_dir, masks_dir, *names, resolution, unlabelled))
        for video in videos:
            _require_first_mask(video)
        videos = [replace(video, given=frozenset([0])) for video in videos]
        first_root = data_root if isinstance(data_root, str | Path) else data_root[0]
        table = None if palette_file is None else Path(first_root) / palette_file
        super().__init__(videos, pipeline, table, single_object, palette, ignored_values, colour_masks)

    def metrics(self, options: ResultOptions) -> list[Evaluator]:
        """The evaluators of DAVIS; by default the one that fits `single_object`.

        Raises:
            ConfigError: an unknown metric or option.
            DataError: videos without a mask for every frame (test-dev).
        """
        names = chosen_metrics(self.metric_names, options.metrics)
        if options.metrics is None and self.single_object:
            names = ("DAVIS16",)
        bare = [video.name for video in self.videos if video.labels is None]
        if names and bare:
            raise DataError(
                f"evaluation of videos without a mask for every frame ({len(bare)} of {len(self.videos)}, the first "
                f"is {bare[0]!r})",
                f"masks for every video, in {self.masks_dir}",
                "give --format-only and upload the zip, as for test-dev; where only some frames have masks, set "
                "unlabelled='keep' in the data set",
            )
        given = {"video_order": [video.name for video in self.videos]}
        kinds = {"DAVIS16": DAVIS16Evaluator, "DAVIS17": DAVIS17Evaluator}
        return [build_evaluator(kinds[name], options.metric_options, given) for name in names]

    def png_writer(self, folder: Path) -> LabelPngWriter:
        """Masks of 0 and 255 for a single object, else object ids."""
        if self.single_object:
            return ObjectMaskWriter(folder, self.palette, scored_whole=False)
        return super().png_writer(folder)


def _require_first_mask(video: ObjectVideoFiles) -> None:
    if 0 not in video.masks:
        raise DataError(
            f"video {video.name!r}: no mask for its first frame {video.frames[0]}; the first one is "
            f"{video.masks[min(video.masks)]}",
            "a mask of the first frame, which gives the objects to follow",
            "extract the annotations, or take a data set whose objects come later (YouTubeVOSDataset)",
        )
