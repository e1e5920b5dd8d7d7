"""Training clips of videos with object masks: three frames that jump ahead, up to two objects (STCN, GSFM stage 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from annotated_types import Len
from PIL import Image
from PIL.Image import Resampling

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.given_masks import (
    IgnoredValues,
    ObjectLayout,
    ObjectVideoFiles,
    Palette,
    find_objects,
)
from mmseg.datasets.picture_changes import (
    ColourJitter,
    Motion,
    Recolouring,
    affine,
    grey,
    mirrored,
    resized_crop_box,
    to_array,
)
from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.datasets.video_layout import FLAT_NAMES
from mmseg.errors import DataError
from mmseg.images import read_frame
from mmseg.registry import DATASETS
from mmseg.structures import Progress
from mmseg.values import Fraction, PositiveInt, Text

CLIP = 3  # frames
JUMPS = (5, 10, 15, 20, 25, 5)  # largest distance of frames, growing, and small again in the end
LIMITS = (0.1, 0.2, 0.3, 0.4, 0.9)  # shares of the epochs at which it changes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# the same in grey levels, for those who want to see a sample
IMG_NORM_CFG = dict(mean=[255 * x for x in MEAN], std=[255 * x for x in STD], to_rgb=True)
_ATTEMPTS = 5
_NAMED = 5  # videos that a message names

logger = logging.getLogger("mmseg.datasets")

_OF_CLIP, _OF_FRAME = ColourJitter(0.1, 0.03, 0.03), ColourJitter(0.01, 0.01, 0.01)


def maximum_jump(epoch: int, epochs: int, last: float = LIMITS[-1]) -> int:
    """The largest distance of the frames of a clip in an epoch (counted from 0) of a training of `epochs`.

    It shrinks again after the share `last` of the epochs.
    """
    return JUMPS[sum(epoch >= round(epochs * limit) for limit in (*LIMITS[:-1], last))]


def draw_frames(num_frames: int, jump: int, below: Callable[[int], int], chance: Callable[[], float]) -> list[int]:
    """The three frames of a clip, backwards half of the time (GSFM specification, section 8.2).

    Near the end of a video distances shrink, and frames can come twice: that is how it was published.

    Args:
        num_frames: of the video, at least 3.
        jump: the largest distance.
        below: draws an integer from 0 to its argument - 1.
        chance: draws a number from 0 to 1.
    """
    jump = min(num_frames, jump)
    first = below(num_frames - jump + 1)
    second = min(first + 1 + below(jump + 1), num_frames - jump, num_frames - 1)
    third = min(second + 1 + below(jump + 1), num_frames - jump // 2, num_frames - 1)
    frames = [first, second, third]
    return frames[::-1] if chance() < 0.5 else frames


@DATASETS.register_module()
class VOSClipDataset(VideoDataset):
    """DAVIS, YouTube-VOS and the like for training.

    A sample has ``img`` (3, 3, H, W) float32, ``gt_semantic_seg`` (3, 1, H, W) int64 with 0, 1 and 2, ``selector`` (2,)
    with 1 for the objects that there are, and ``img_metas``.

    Args:
        data_root: the folder of JPEGImages and Annotations; or a list of such, whose videos are then called
            ``<folder>/<video>``.
        split: text file with the names of the videos, relative to `data_root`; None takes all folders.
        resolution: folder in JPEGImages and Annotations, '480p' for DAVIS; '' for none.
        jump_divisor: the frames at hand are every n-th of the video: 5 for YouTube-VOS.
        crop_size: side of the square that is cut out.
        last_limit: share of the epochs after which distances are small again.
        test_mode: always False.
        frames_dir, masks_dir, frame_suffix, mask_suffix, video_pattern, ignored_values, colour_masks, palette: see
            :class:`DAVISDataset`.
        unlabelled: 'keep': frames may be without mask; clips are made of those that have one, and distances count
            these.

    Raises:
        DataError: the split file or a video is missing, a frame has no mask, or no video has three frames.
    """

    background = 0

    img_norm_cfg = IMG_NORM_CFG

    def __init__(
        self,
        data_root: str | Path | Annotated[Sequence[str | Path], Len(1)],
        split: Text | None = None,
        resolution: str = "",
        jump_divisor: PositiveInt = 1,
        crop_size: PositiveInt = 384,
        last_limit: Fraction = LIMITS[-1],
        test_mode: Literal[False] = False,
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
        self.jump_divisor, self.crop_size, self.last_limit = jump_divisor, crop_size, last_limit
        names = frame_suffix, mask_suffix, video_pattern
        found = find_objects(data_root, split, ObjectLayout(frames_dir, masks_dir, *names, resolution, unlabelled))
        videos = [_for_training(video, unlabelled == "keep") for video in found]
        short = [video.name for video in videos if video.num_frames < CLIP]
        if short:
            names = ", ".join(short[:_NAMED]) + (", ..." if len(short) > _NAMED else "")
            found = f"{data_root}: {len(short)} of {len(videos)} videos have less than {CLIP} frames: {names}"
            if len(short) == len(videos):
                raise DataError(found, f"{CLIP} frames or more, of which a clip is made", "give longer videos")
            logger.warning("%s; they are left out", found)
        videos = [video for video in videos if video.num_frames >= CLIP]
        given = dict(palette=palette, ignored_values=ignored_values, colour_masks=colour_masks)
        super().__init__(videos, reduce_zero_label=False, **given)

    def clip(self, index: int, rng: np.random.Generator, progress: Progress | None = None) -> dict[str, Any]:
        """See :class:`VOSClipDataset` for what it holds.

        Args:
            index: of the video.
            rng: the only source of randomness.
            progress: how far the training is; None: at its start.

        Raises:
            DataError: a file is missing, damaged or does not fit.
        """
        jump = JUMPS[0] if progress is None else maximum_jump(progress.epoch, progress.epochs, self.last_limit)
        jump = max(jump // self.jump_divisor, 1)
        return self.drawn(index, jump, _Draws(rng))

    def drawn(self, index: int, jump: int, draws: ClipDraws) -> dict[str, Any]:
        """A sample of a video whose frames are at most `jump` apart, see :meth:`clip`."""
        video = self.videos[index]
        for _ in range(_ATTEMPTS):
            numbers = draws.frames(video.num_frames, jump)
            images, masks = self._changed([self._read(index, number) for number in numbers], draws)
            ids = [int(value) for value in np.unique(masks[0]) if value]
            if ids:
                break
        objects = draws.objects(ids)
        labels = sum((position * (masks == number) for position, number in enumerate(objects, 1)), np.zeros(()))
        labels = np.broadcast_to(labels, masks.shape).astype(np.int64)
        return {
            "img": normalised(images),
            "gt_semantic_seg": torch.from_numpy(labels)[:, None],
            "selector": torch.tensor([1.0, float(len(objects) > 1)]),
            "img_metas": {
                "video": video.name,
                "frames": [sorted(video.masks)[number] for number in numbers],
                "filename": video.frames[numbers[0]],
            },
        }

    def _read(self, index: int, number: int) -> tuple[Image.Image, Image.Image]:
        """A frame (RGB) and its mask."""
        video = self.videos[index]
        frame = read_frame(video.frames[number])
        mask = fitted_mask(self.read_label(video.labels[number]), frame.shape[:2], video.labels[number])
        return Image.fromarray(frame[..., ::-1].copy()), Image.fromarray(mask)

    def _changed(
        self, pairs: Sequence[tuple[Image.Image, Image.Image]], draws: ClipDraws
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cropped, mirrored, moved and recoloured: images (3, S, S, 3) RGB and masks (3, S, S), both uint8."""
        size, shared = (self.crop_size, self.crop_size), draws.of_clip(pairs[0][0].size)
        images, masks = [], []
        for image, mask in pairs:
            if shared.mirror:
                image, mask = mirrored(image), mirrored(mask)
            image = shared.recolour(image.crop(shared.box).resize(size, Resampling.BICUBIC))
            mask = mask.crop(shared.box).resize(size, Resampling.NEAREST)
            image = grey(image) if shared.grey else image
            motion, recolour = draws.of_frame()
            images.append(recolour(affine(image, *motion, Resampling.BICUBIC)))
            masks.append(affine(mask, *motion))
        return to_array(images), to_array(masks)


class OfClip(NamedTuple):
    """What the frames of a clip have in common."""

    mirror: bool
    box: tuple[int, int, int, int]  # left, top, right, bottom of the crop
    recolour: Recolouring
    grey: bool


class ClipDraws(Protocol):
    """Where the chances of a clip come from, in the order in which they are asked for."""

    def frames(self, num_frames: int, jump: int) -> list[int]:
        """See :func:`draw_frames`."""

    def of_clip(self, size: tuple[int, int]) -> OfClip:
        """For frames of `size` (width, height)."""

    def of_frame(self) -> tuple[Motion, Recolouring]: ...

    def objects(self, ids: Sequence[int]) -> list[int]:
        """Up to two of them."""


class _Draws:
    """The chances of training."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def frames(self, num_frames: int, jump: int) -> list[int]:
        return draw_frames(num_frames, jump, lambda high: int(self.rng.integers(high)), self.rng.random)

    def of_clip(self, size: tuple[int, int]) -> OfClip:
        rng = self.rng
        mirror, box = rng.random() < 0.5, resized_crop_box(size, (0.36, 1.0), (3 / 4, 4 / 3), rng)
        return OfClip(mirror, box, _OF_CLIP.draw(rng), rng.random() < 0.05)

    def of_frame(self) -> tuple[Motion, Recolouring]:
        recolour = _OF_FRAME.draw(self.rng)
        return Motion(self.rng.uniform(-15, 15), 1.0, self.rng.uniform(-10, 10)), recolour

    def objects(self, ids: Sequence[int]) -> list[int]:
        return [int(number) for number in self.rng.permutation(ids)[:2]]


def normalised(images: np.ndarray) -> torch.Tensor:
    """RGB (T, H, W, 3) uint8 -> (T, 3, H, W) float32."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return ((pixels - mean) / std).contiguous()


def _for_training(video: ObjectVideoFiles, keep_unlabelled: bool) -> ObjectVideoFiles:
    """A video of the frames that have masks, whose `masks` keep their numbers; DataError where all should."""
    numbers = sorted(video.masks)
    if len(numbers) < video.num_frames and not keep_unlabelled:
        raise DataError(
            f"video {video.name!r}: {len(numbers)} masks for {video.num_frames} frames",
            "a mask for every frame of a training video",
            "extract the annotations again; where only some frames have masks, set unlabelled='keep' in the data set",
        )
    frames = tuple(video.frames[number] for number in numbers)
    labels = tuple(video.masks[number] for number in numbers)
    return replace(video, frames=frames, labels=labels, num_frames=len(frames))
