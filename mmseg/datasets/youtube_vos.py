"""YouTube-VOS 2018 and 2019: objects that appear in the middle of a video, each given where it does.

::

    <data_root>/Annotations/<video>/<frame>.png      object ids, for the frames on which objects are given
    <data_root>/meta.json                            videos -> <video> -> objects -> <id> -> frames to be predicted
    <img_dir>/<video>/<frame>.jpg                    all frames
"""

from __future__ import annotations

import logging
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
    listed_videos,
    scan_objects,
)
from mmseg.datasets.video_layout import FLAT_NAMES
from mmseg.errors import DataError
from mmseg.evaluation import Evaluator
from mmseg.files import read_json
from mmseg.registry import DATASETS
from mmseg.values import Text
from mmseg.writing.base import ResultOptions

logger = logging.getLogger("mmseg.datasets")


@DATASETS.register_module()
class YouTubeVOSDataset(ObjectVideoDataset):
    """YouTube-VOS for testing. What is said about the results is said by its server.

    Args:
        data_root: the folder of Annotations and meta.json.
        img_dir: the folder of the frames, relative to `data_root`; the official results come of all frames, of which
            only some have to be predicted.
        all_frames: predict all frames, not only those that meta.json names.
        palette_file: a PNG, relative to `data_root`, whose palette the results get.
        pipeline: the test pipeline.
        test_mode: always True.
        masks_dir, frame_suffix, mask_suffix, video_pattern, ignored_values, colour_masks, palette: see
            :class:`DAVISDataset`.

    Raises:
        DataError: meta.json, a video or a frame that it names is missing, or a video has no mask.
    """

    inside_submission = "Annotations"

    def __init__(
        self,
        data_root: str | Path,
        img_dir: Text = "JPEGImages",
        all_frames: bool = False,
        palette_file: str | Path | None = None,
        pipeline: Annotated[Sequence[Any], Len(1)] | None = None,
        test_mode: Literal[True] = True,
        masks_dir: Text = "Annotations",
        frame_suffix: Text | None = None,
        mask_suffix: Text | None = None,
        video_pattern: Text = FLAT_NAMES,
        ignored_values: IgnoredValues = (),
        colour_masks: bool = False,
        palette: Palette | None = None,
    ) -> None:
        self.data_root, self.masks_dir = Path(data_root), masks_dir
        names = frame_suffix, mask_suffix, video_pattern
        folders = ObjectLayout(os.path.normpath(img_dir), masks_dir, *names).folders(self.data_root)
        required = None if all_frames else _required_frames(self.data_root / "meta.json")
        videos = []
        for name in listed_videos(self.data_root, None, folders[0]):
            video = scan_objects(name, folders)
            wanted = None if required is None else _numbers(video, required)
            videos.append(replace(video, given=frozenset(video.masks), wanted=wanted))
        _tell_of_missing_results(videos, required)
        table = None if palette_file is None else self.data_root / palette_file
        super().__init__(videos, pipeline, table, False, palette, ignored_values, colour_masks)
        self._sizes: dict[int, tuple[int, int]] = {}

    def result_size(self, video_index: int) -> tuple[int, int]:
        """The size of the first mask."""
        if video_index not in self._sizes:
            masks = self.videos[video_index].masks
            self._sizes[video_index] = self.read_label(masks[min(masks)]).shape
        return self._sizes[video_index]

    def metrics(self, options: ResultOptions) -> list[Evaluator]:
        """None: the masks are on the server."""
        if options.metrics:
            raise DataError(
                f"--eval {' '.join(options.metrics)} on YouTube-VOS, whose masks are on its server",
                "--format-only",
                "upload the zip; tools/evaluate.py scores PNGs where the masks are at hand",
            )
        return []


def _required_frames(path: Path) -> dict[str, set[str]]:
    """Video -> names of the frames that have to be predicted, those of all of its objects."""
    try:
        videos = read_json(path)["videos"]
        return {
            name: {frame for one in video["objects"].values() for frame in one["frames"]}
            for name, video in videos.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no list of videos, objects and frames ({type(error).__name__}: {error})",
            'the meta.json of YouTube-VOS: {"videos": {video: {"objects": {id: {"frames": [...]}}}}}',
            "extract it again, or set all_frames=True",
        ) from error


def _tell_of_missing_results(videos: Sequence[ObjectVideoFiles], required: dict[str, set[str]] | None) -> None:
    """Warn of videos that the results will lack, which the server does not take."""
    known = {video.name for video in videos}
    absent = sorted(set(required or ()) - known)
    if absent:
        logger.warning(
            "%d videos of meta.json are not there, the first is %r: no results of them", len(absent), absent[0]
        )
    idle = [video.name for video in videos if video.wanted is not None and not video.wanted]
    if idle:
        logger.warning(
            "meta.json asks for no frame of %d videos, the first is %r: no results of them", len(idle), idle[0]
        )


def _numbers(video: ObjectVideoFiles, required: dict[str, set[str]]) -> frozenset[int]:
    """The numbers of the frames of a video that have to be predicted."""
    if video.name not in required:
        raise DataError(
            f"video {video.name!r} is not in meta.json", "frames for every video", "take the meta.json of this split"
        )
    numbers = {Path(path).stem: number for number, path in enumerate(video.frames)}
    missing = sorted(required[video.name] - numbers.keys())
    if missing:
        raise DataError(
            f"video {video.name!r}: no frame {missing[0]} ({len(missing)} of those in meta.json are missing)",
            "all frames that have to be predicted",
            "extract the frames again, or take those of this split",
        )
    return frozenset(numbers[name] for name in required[video.name])
