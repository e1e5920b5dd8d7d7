"""What every video data set is: a list of videos, seen as clips in training and as streams in testing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmseg.clips import train_clip, train_targets_both_ways
from mmseg.datasets.labels import LabelReader, count_labels, no_object
from mmseg.datasets.prefetch import read_ahead
from mmseg.datasets.results import class_metrics, label_writers
from mmseg.datasets.transforms import Compose, LoadLabels, TestPipeline
from mmseg.datasets.transforms.test_time import AUGMENT_RATIOS
from mmseg.datasets.video_files import VideoFiles, without_clips
from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import Evaluator
from mmseg.evaluation.vspw import METRIC_NAMES
from mmseg.images import check_same_size, read_frame
from mmseg.registry import absolute
from mmseg.structures import Flipped, Frame
from mmseg.writing.base import ResultOptions, ResultWriter

IGNORE_INDEX = 255

logger = logging.getLogger("mmseg.datasets")


@dataclass(frozen=True)
class WholeVideo:
    """What a model may ask of a video that is at hand from start to end (see ``VideoModel.stream``)."""

    dataset: VideoDataset
    index: int

    @property
    def name(self) -> str:
        return self.dataset.videos[self.index].name

    @property
    def num_frames(self) -> int:
        return self.dataset.videos[self.index].num_frames

    def network_input(self, number: int) -> torch.Tensor:
        """A frame after the test pipeline, (C, h, w), at the first scale and not mirrored.

        Raises:
            DataError: the frame cannot be read.
        """
        image = self.dataset.load_frame(self.index, number)
        views = self.dataset.pipeline.views(Frame(number, str(number), image))
        return next(view.inputs["img"] for view in views if not any(isinstance(s, Flipped) for s in view.steps))


class VideoDataset:
    """Videos with per-pixel labels.

    In training an item is a video, from which a clip is drawn; in testing the frames of a video are read in order,
    each once.

    Args:
        videos: in data-set order.
        pipeline: config dicts: transforms of clips in training, the test pipeline in testing; None if only files
            and labels are read.
        dilation: offsets of a clip's reference frames relative to the target, oldest first; none by default.
        test_mode: testing.
        classes: names in label order; None: masks hold object ids.
        palette: RGB colours in label order, or None.
        reduce_zero_label: raw label 0 is ignored and v is class v - 1.
        short_videos: what to do in training with videos that have no clip: 'error' or 'drop'.
        ignored_values: further values of masks, or with `colour_masks` RGB colours, that are ignored; in masks of
            objects they are background.
        colour_masks: masks are pictures in the colours of the `palette`.

    Attributes:
        videos: list of :class:`VideoFiles`.
        CLASSES, PALETTE, num_classes, ignore_index, dilation, pipeline, test_mode.
        background: label of pixels without an object, in masks of objects; None in masks of classes.

    Raises:
        ConfigError: an argument that cannot work.
        DataError: no videos, or videos too short for a clip.
    """

    CLASSES: tuple[str, ...] | None = None
    PALETTE: list[list[int]] | None = None
    ignore_index = IGNORE_INDEX
    background: int | None = None
    masks_dir: str | None = None  # where masks are looked for, in words for messages
    learns_all_frames = False  # of a clip, not only the target: then all of them need masks
    frame_rate = 15.0  # of the videos, and of overlays of them
    submission = "result_submission"  # folder of the PNGs of --format-only and --save-png
    augment_ratios: tuple[float, ...] = AUGMENT_RATIOS  # of --aug-test, unless a config gives its own

    def __init__(
        self,
        videos: Sequence[VideoFiles],
        pipeline: Sequence[Any] | None = None,
        dilation: Sequence[int] = (),
        test_mode: bool = False,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        reduce_zero_label: bool = True,
        short_videos: str = "error",
        ignored_values: Sequence[int | Sequence[int]] = (),
        colour_masks: bool = False,
    ) -> None:
        self.videos, self.dilation, self.test_mode = list(videos), tuple(dilation), test_mode
        self.CLASSES, self.PALETTE = None if classes is None else tuple(classes), palette
        self.num_classes = None if classes is None else len(classes)
        self.reduce_zero_label = reduce_zero_label
        void = IGNORE_INDEX if self.background is None else self.background
        self.label_reader = LabelReader.of(
            self.num_classes, reduce_zero_label, ignored_values, palette, colour_masks, void
        )
        if short_videos not in ("error", "drop"):
            raise ConfigError(f"short_videos={short_videos!r}", "'error' or 'drop'", "fix short_videos")
        if not self.videos:
            raise DataError("a data set without videos", "at least one video", "check the split")
        if test_mode:
            self.pipeline = None
            if pipeline is not None:
                self.pipeline = TestPipeline(pipeline, augment_ratios=self.augment_ratios)
            self._check_names()
            self._tell_of_gaps()
        else:
            self.pipeline = Compose(pipeline) if pipeline is not None else None
            for number, transform in enumerate(self.pipeline.transforms if self.pipeline is not None else ()):
                if isinstance(transform, LoadLabels):
                    transform.check_agrees(reduce_zero_label, absolute(f"pipeline.{number}"))
            self._check_dilation()
            self._check_lengths(short_videos)
        self.videos = [replace(video, index=index) for index, video in enumerate(self.videos)]

    def __len__(self) -> int:
        """Videos in training, frames in testing."""
        return sum(video.num_frames for video in self.videos) if self.test_mode else len(self.videos)

    def __getitem__(self, key: int | tuple[int, Sequence[int]]) -> dict[str, Any]:
        """``ds[index, seed]``: the clip of a video that the integers `seed` determine; ``ds[index]``: any clip."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        return self.clip(index, np.random.default_rng(seed))

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """Draw a training clip from a video and run the pipeline on it.

        Args:
            index: of the video.
            rng: the only source of randomness, for the choice of the clip and for the transforms.
            progress: how far the training is; for data sets with a curriculum, without effect here.

        Returns:
            What the pipeline collects: ``img`` (T, 3, H, W) float32, ``gt_semantic_seg`` (T, 1, H, W) int64,
            ``img_metas`` of the target frame (video, frame, filename, ori_shape ...).

        Raises:
            DataError: a file of the clip is missing, damaged or does not fit.
        """
        self._require_clips()
        video = self.videos[index]
        return self._run_pipeline(video, self.draw_clip(len(video.frames), rng, video.labelled), rng)

    def _require_clips(self) -> None:
        if self.pipeline is None or self.test_mode:
            raise ConfigError(
                "clips of a data set in test mode or without pipeline",
                "a training data set with a pipeline",
                "use frames(index), load_frame and load_label to look at a test set",
            )

    def _run_pipeline(
        self, video: VideoFiles, numbers: Sequence[int], rng: np.random.Generator, **more: Any
    ) -> dict[str, Any]:
        """What the pipeline makes of some frames of a video, the target last; `more` goes to the loaders."""
        self._require_clips()
        target = video.frames[numbers[-1]]
        return self.pipeline(
            dict(
                frames=[video.frames[i] for i in numbers],
                labels=[video.labels[i] for i in numbers] if video.labels is not None else None,
                read_labels=self.read_label,
                reduce_zero_label=self.reduce_zero_label,
                rng=rng,
                meta=dict(
                    video=video.name, frame=numbers[-1], clip=list(numbers), filename=target, ori_filename=target
                ),
                **more,
            )
        )

    def draw_clip(self, num_frames: int, rng: np.random.Generator, labelled: Sequence[bool] | None = None) -> list[int]:
        """Frame numbers of a training clip: time runs backwards half of the time, the target is uniform.

        Where not all frames have masks (`labelled`), the target is one that has; if it has references on one side only,
        time runs in that direction.
        """
        forwards, backwards = train_targets_both_ways(num_frames, self.dilation, labelled, self.learns_all_frames)
        reverse = rng.random() < 0.5
        reverse = (reverse or not forwards) if backwards else False
        targets = backwards if reverse else forwards
        numbers = train_clip(targets[rng.integers(len(targets))], self.dilation)
        return [num_frames - 1 - i for i in numbers] if reverse else numbers

    def load_frame(self, video_index: int, number: int) -> np.ndarray:
        """Frame `number` of a video, (H, W, 3) uint8 BGR. Raises DataError if it cannot be read."""
        return read_frame(self.videos[video_index].frames[number])

    def load_label(self, video_index: int, number: int) -> np.ndarray | None:
        """Network labels of a frame, (H, W) uint8 with 255 for ignored pixels; None if it has no mask.

        Raises:
            DataError: the mask is missing, damaged, coloured, or holds values that are no class.
        """
        paths = self.videos[video_index].labels
        if paths is None or paths[number] is None:
            return None
        return self.read_label(paths[number])

    def frame(self, video_index: int, number: int) -> Frame:
        """Frame `number` of a video with its truth.

        Raises:
            DataError: frame or mask cannot be read, or differ in size.
        """
        video = self.videos[video_index]
        path = video.frames[number]
        image, truth = self.load_frame(video_index, number), self.load_label(video_index, number)
        if truth is not None:
            check_same_size(image, truth, video.labels[number])
        return Frame(number, Path(path).stem, image, truth=truth, path=path, reload=partial(read_frame, path))

    def frames(self, video_index: int) -> Iterator[Frame]:
        """All frames of a video in order, decoded ahead in the background. Raises DataError, see :meth:`frame`."""
        return read_ahead(partial(self.frame, video_index), range(self.videos[video_index].num_frames))

    def label_counts(self, masks: int = 200) -> np.ndarray:
        """Pixels of each network label, (256,) int64, in a sample of the masks; 255 counts ignored pixels.

        Args:
            masks: size of the sample, at most.

        Raises:
            DataError: there are no masks, none of them has a labelled pixel (or an object), or one cannot be used.
        """
        paths = [path for video in self.videos for path in video.mask_files]
        if not paths:
            raise DataError(
                f"no masks for the {len(self.videos)} videos, the first is {self.videos[0].name!r}",
                "videos with masks",
                "use a split that has masks",
            )
        if self.background is None:
            return count_labels(paths, self.read_label, self.label_reader.nothing_labelled, masks)
        return count_labels(paths, self._read_objects, no_object, masks, self.background)

    def _read_objects(self, path: str) -> np.ndarray:
        """The object ids of a mask, (H, W) uint8, 255 counted as 254: it is an object like any other here."""
        return np.minimum(self.read_label(path), np.uint8(IGNORE_INDEX - 1))

    def read_label(self, path: str) -> np.ndarray:
        """The network labels (H, W) uint8 of a mask. Raises DataError, see :meth:`LabelReader.read`."""
        return self.label_reader.read(path)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What ``--eval`` offers, its default first; nothing where there are no classes."""
        return METRIC_NAMES if self.num_classes else ()

    def is_labelled(self) -> bool:
        """Whether all videos can be evaluated."""
        return all(video.labels is not None for video in self.videos)

    def metrics(self, options: ResultOptions) -> list[Evaluator]:
        """What the test loop feeds with results and truth. Raises SegError, see :func:`class_metrics`."""
        return class_metrics(self, options)

    def score_names(self, options: ResultOptions | None = None) -> list[str]:
        """Names of all single numbers that an evaluation on this data gives: mIoU, VC8, mmseg/mIoU, IoU.<class> ..."""
        return [name for evaluator in self.metrics(options or ResultOptions()) for name in evaluator.score_names]

    def writers(self, options: ResultOptions) -> list[ResultWriter]:
        """What the test loop hands results to. Raises ConfigError for files that this data set does not make."""
        if options.output_dir is not None:
            raise ConfigError(
                f"--output_dir {options.output_dir} for a {type(self).__name__}",
                "a data set of objects, whose masks are 0 and 255",
                "use --save-png or --show-dir of tools/test.py",
            )
        return label_writers(self, options)

    def _check_names(self) -> None:
        """Results are filed under the names of the videos."""
        seen: set[str] = set()
        for video in self.videos:
            if video.name in seen:
                raise DataError(
                    f"video {video.name!r} is listed twice in the split", "each video once", "remove a line"
                )
            seen.add(video.name)

    def _tell_of_gaps(self) -> None:
        """Say that some frames have no truth."""
        sparse = [video for video in self.videos if video.labelled is not None]
        if sparse:
            logger.warning(
                "%d of %d videos have masks for some frames only (%s: %d of %d); they are scored by these",
                *(len(sparse), len(self.videos), sparse[0].name, len(sparse[0].mask_files), sparse[0].num_frames),
            )

    def _check_dilation(self) -> None:
        offsets = self.dilation
        if not all(isinstance(d, int) and d <= 0 for d in offsets) or list(offsets) != sorted(set(offsets)):
            raise ConfigError(
                f"dilation={list(offsets)}",
                "different offsets of at most 0 in ascending order, as [-9, -6, -3]",
                "fix dilation",
            )

    def _check_lengths(self, short_videos: str) -> None:
        """Leave out, or refuse, videos from which no clip can be drawn."""
        short = [video for video in self.videos if not video.has_clips(self.dilation, self.learns_all_frames)]
        if not short:
            return
        self.videos = [video for video in self.videos if video.has_clips(self.dilation, self.learns_all_frames)]
        if short_videos != "drop" or not self.videos:
            raise without_clips(short, self.dilation, self.learns_all_frames)
