"""Frames with pictures of their optical flow and object masks: the layout of DAVIS2SEG and YouTube2SEG (HFAN).

::

    <data_root>/frame/train/<video>_<frame>.jpg      or frame/train/<video>/<frame>.jpg
    <data_root>/flow/train/...                       the same names
    <data_root>/mask/train/...                       the same names with .png
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Len

from mmseg import values
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.binary_masks import MaskReader, MaskValues
from mmseg.datasets.frame_names import (
    FRAME,
    MASK,
    by_video,
    check_suffixes,
    find_files,
    find_frames,
    frame_name,
    no_frames,
    read_names,
)
from mmseg.datasets.results import build_evaluator, chosen_metrics, label_writers
from mmseg.datasets.video_files import VideoFiles
from mmseg.errors import DataError
from mmseg.evaluation import Evaluator
from mmseg.evaluation.davis import DAVIS16Evaluator, PooledFramesEvaluator
from mmseg.images import check_flow_size, check_same_size, read_frame
from mmseg.registry import DATASETS
from mmseg.structures import Frame
from mmseg.values import Text
from mmseg.visualization import palette_table
from mmseg.writing.base import ResultOptions, ResultWriter
from mmseg.writing.object_masks import ObjectMaskWriter, PaintingWriter

logger = logging.getLogger("mmseg.datasets")

_EVALUATORS = {"VOS": PooledFramesEvaluator, "DAVIS16": DAVIS16Evaluator}
_SHORTEST = 3  # masks that the DAVIS-2016 protocol needs of a video
_NAMED = 5  # files that a message names


@dataclass(frozen=True)
class FlowVideoFiles(VideoFiles):
    """A video with the flow picture of every frame; masks may be missing."""

    flows: tuple[str, ...] = ()


@DATASETS.register_module()
class VOSDataset(VideoDataset):
    """Triples of frame, flow picture and mask. In training every frame is an item of its own.

    Folders are listed, no file is opened; flow and mask of a frame have its name, and suffixes may be in any case.

    Args:
        data_root: what the other paths are relative to.
        img1_dir: folder of the frames, ``*.jpg`` at any depth.
        img2_dir: folder of the flow pictures.
        ann_dir: folder of the masks, or None.
        split: text file with names of frames without suffix, one a line, in this order; None takes all frames.
        pipeline, test_mode: see :class:`VideoDataset`.
        classes, palette: names and colours of background and object.
        mask_values: what the values of masks mean, see :class:`MaskReader`; 'auto' means in testing that all values but
            0 are the object.
        img_suffix, flow_suffix, seg_map_suffix: ends of the names of frames, flow pictures and masks, after what they
            have in common; ``_rgb.png`` and the like.
        ignored_values: values of masks, or with `colour_masks` RGB colours, that are ignored, also in scores.
        colour_masks: masks are pictures in the two colours of the `palette`.
        unlabelled: 'keep': frames may be without mask, and are left out of a training. In testing they always may.
        ignore_index, reduce_zero_label: of published configs; they cannot differ.

    Raises:
        DataError: a folder or the split file is missing, there are no frames, or two files have the same stem.
    """

    CLASSES = ("Background", "Foreground")
    PALETTE = [[0, 0, 0], [255, 0, 0]]  # noqa: RUF012
    augment_ratios = (0.75, 1.0, 1.75)
    metric_names = tuple(_EVALUATORS)

    def __init__(
        self,
        img1_dir: Text,
        img2_dir: Text,
        ann_dir: Text | None = None,
        data_root: str | Path | None = None,
        split: Text | None = None,
        pipeline: Annotated[Sequence[Any], Len(1)] | None = None,
        test_mode: bool = False,
        classes: Annotated[Sequence[str], Len(2, 2)] | None = None,
        palette: Annotated[values.Palette, Len(2, 2)] | None = None,
        mask_values: MaskValues = "auto",
        img_suffix: Text = FRAME,
        seg_map_suffix: Text = MASK,
        ignore_index: Literal[255] = 255,
        reduce_zero_label: Literal[False] = False,
        flow_suffix: Text = FRAME,
        ignored_values: Sequence[values.Byte | Annotated[Sequence[values.Byte], Len(3, 3)]] = (),
        colour_masks: bool = False,
        unlabelled: Literal["error", "keep"] = "error",
    ) -> None:
        self.data_root = data_root
        self.img1_dir, self.img2_dir, self.ann_dir = (self._below(path) for path in (img1_dir, img2_dir, ann_dir))
        if data_root is not None and Path(img1_dir).is_absolute():
            self.img2_dir = img2_dir  # as published: joined only where the frames are
        self._listed = split is None
        self._suffixes = img_suffix, flow_suffix, seg_map_suffix
        check_suffixes(self._suffixes)
        frames = find_frames(self.img1_dir, img_suffix)
        names = list(frames) if self._listed else read_names(self._below(split))
        if not names:
            raise no_frames(self.img1_dir, img_suffix)
        self._flows = find_files(self.img2_dir, flow_suffix)
        masks = {} if self.ann_dir is None else find_files(self.ann_dir, seg_map_suffix)
        if unlabelled == "keep" and not test_mode:
            names = [name for name in names if name in masks]
            if not names:
                raise DataError(f"no masks in {self.ann_dir}", f"masks *{seg_map_suffix}", "correct ann_dir")
        groups = by_video(names)
        videos = [self._video(video, stems, frames, masks) for video, stems in groups.items()]
        colours = palette or self.PALETTE
        given = dict(reduce_zero_label=False, ignored_values=ignored_values, colour_masks=colour_masks)
        super().__init__(videos, pipeline, (), test_mode, classes or self.CLASSES, colours, **given)
        place = {name: (v, t) for v, frames in enumerate(groups.values()) for t, name in enumerate(frames)}
        self.items = [place[name] for name in names]  # (video, frame), in the order of the list
        masks = [path for video in self.videos for path in video.labels or ()]
        kind = "objects" if test_mode and mask_values == "auto" else mask_values
        of_colours = self.label_reader if colour_masks else None
        self.masks = MaskReader(kind, masks, () if colour_masks else ignored_values, of_colours)
        # 255 in the truth, which the protocols take for the object
        self._has_void = bool(ignored_values) or (mask_values == "labels" and not colour_masks)

    def _below(self, path: str | None) -> str | None:
        return path if path is None or self.data_root is None else os.path.join(self.data_root, path)

    def _video(
        self, name: str, stems: Sequence[str], frames: Mapping[str, str], masks: Mapping[str, str]
    ) -> FlowVideoFiles:
        """A video from the names of its frames relative to the folder of frames, without suffix."""

        def paths(folder: str, files: Mapping[str, str], stems: Iterable[str], suffix: str) -> tuple[str, ...]:
            return tuple(os.path.join(folder, files.get(stem, stem + suffix)) for stem in stems)

        # as published, ".jpg" in the middle of a name is replaced as well
        of_frames, of_flows, of_masks = self._suffixes
        mask_stems = [stem if stem in masks else stem.replace(FRAME, MASK) for stem in stems]
        labels = None if self.ann_dir is None else paths(self.ann_dir, masks, mask_stems, of_masks)
        images = paths(self.img1_dir, frames, stems, of_frames)
        flows = paths(self.img2_dir, self._flows, stems, of_flows)
        return FlowVideoFiles(-1, name, len(stems), images, labels, flows)

    @property
    def pairs(self) -> list[tuple[str, str, str | None]]:
        """Paths of frame, flow picture and mask of every frame, in the order of the list."""
        videos = self.videos
        return [(videos[v].frames[t], videos[v].flows[t], videos[v].labels and videos[v].labels[t])
                for v, t in self.items]  # fmt: skip

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.items)

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """Run the pipeline on item `index`, a frame with its flow and mask.

        Returns:
            ``img`` (1, 6, H, W) float32, ``gt_semantic_seg`` (1, 1, H, W) int64, and ``img_metas``.

        Raises:
            DataError: a file is missing, damaged or does not fit.
        """
        number, t = self.items[index]
        video = self.videos[number]
        return self._run_pipeline(video, [t], rng, flows=[video.flows[t]])

    def load_label(self, video_index: int, number: int) -> np.ndarray | None:
        """The mask of a frame, (H, W) uint8 of 0 and 1; None if it has none. Raises DataError if it cannot be read."""
        paths = self.videos[video_index].labels
        if paths is None or not os.path.exists(paths[number]):
            return None
        return self.masks.read(paths[number])

    def read_label(self, path: str) -> np.ndarray:
        """See :meth:`VideoDataset.read_label`."""
        return self.masks.read(path)

    def frame(self, video_index: int, number: int) -> Frame:
        """Frame `number` of a video with its flow and, where there is one, its truth. Raises DataError."""
        video = self.videos[video_index]
        path, flow_path = video.frames[number], video.flows[number]
        image, flow, truth = read_frame(path), read_frame(flow_path), self.load_label(video_index, number)
        check_flow_size(image, flow, flow_path)
        if truth is not None:
            check_same_size(image, truth, video.labels[number])
        stem = frame_name(os.path.relpath(path, self.img1_dir)[: -len(self._suffixes[0])])[1]
        return Frame(number, stem, image, flow=flow, truth=truth, path=path, reload=partial(read_frame, path))

    def frames(self, video_index: int) -> Iterator[Frame]:
        """See :meth:`VideoDataset.frames`. Raises DataError at once if a flow picture is missing."""
        self.check_flow(self.videos[video_index])
        return super().frames(video_index)

    def check_flow(self, *videos: FlowVideoFiles) -> None:
        """Raise DataError unless every frame of the videos (default: all) has a flow picture."""
        paths = [path for video in videos or self.videos for path in video.flows]
        missing = [path for path in paths if not os.path.exists(path)]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} frames without optical flow: {', '.join(missing[:_NAMED])}"
                + (", ..." if len(missing) > _NAMED else ""),
                f"a flow picture for every frame of {self.img1_dir}, of the same name, in {self.img2_dir}; "
                "also for the last of a video",
                "make them with tools/generate_flow.py, or correct img2_dir",
            )

    def _tell_of_more_flow(self) -> None:
        """Warn of flow pictures that belong to no frame: it may be that of other frames."""
        if self._listed and len(self._flows) > len(self):
            logger.warning("%s: %d flow pictures for %d frames", self.img2_dir, len(self._flows), len(self))

    def label_counts(self, masks: int = 200) -> np.ndarray:
        """See :meth:`VideoDataset.label_counts`.

        Raises:
            DataError: also for missing flow pictures and, in training, for missing masks.
        """
        self.check_flow()
        self._tell_of_more_flow()
        paths = [path for video in self.videos for path in video.labels or ()]
        existing = [path for path in paths if os.path.exists(path)]
        if not existing or (not self.test_mode and len(existing) < len(self)):
            first = next((path for path in paths if not os.path.exists(path)), "ann_dir is not set")
            raise DataError(
                f"{len(self) - len(existing)} of {len(self)} frames without mask: {first}",
                f"a mask of the same name, with {self._suffixes[2]}, for every frame",
                "correct ann_dir, leave these frames out by a split file, or set unlabelled='keep' in the data set",
            )
        return self.masks.counts(existing, masks)

    def metrics(self, options: ResultOptions) -> list[Evaluator]:
        """``VOS``: all frames pooled, as in HFAN's training log; ``DAVIS16``: the published numbers."""
        names = chosen_metrics(self.metric_names, options.metrics)
        if not names:
            return []
        masks = {video.name: sum(map(os.path.exists, video.labels or ())) for video in self.videos}
        bare = [name for name, count in masks.items() if not count]
        if bare:
            raise DataError(
                f"evaluation of videos without masks ({len(bare)} of {len(masks)}, the first is {bare[0]!r})",
                f"masks in {self.ann_dir}",
                "correct ann_dir, or give --eval None",
            )
        partial_ones = [v for v in self.videos if masks[v.name] < v.num_frames]
        if partial_ones:
            logger.warning(
                "%d videos have masks for some frames only (%s: %d of %d); they are scored by these",
                *(len(partial_ones), partial_ones[0].name, masks[partial_ones[0].name], partial_ones[0].num_frames),
            )
        given = dict(video_order=list(masks), ignore_index=self.ignore_index if self._has_void else None)
        return [build_evaluator(_EVALUATORS[name], options.metric_options, given) for name in names]

    def is_labelled(self) -> bool:
        """Whether the DAVIS-2016 protocol can be applied to all videos."""
        return all(sum(map(os.path.exists, video.labels or ())) >= _SHORTEST for video in self.videos)

    def writers(self, options: ResultOptions) -> list[ResultWriter]:
        """Also, for ``output_dir``, binary masks in ``<output_dir>-DAVIS-16`` and paintings in the folder itself."""
        writers = label_writers(self, options)
        if options.output_dir is not None:
            table = palette_table(options.palette or self.PALETTE, self.num_classes)
            writers.append(ObjectMaskWriter(options.mask_dir, table))
            writers.append(PaintingWriter(options.output_dir, table, options.opacity))
        return writers
