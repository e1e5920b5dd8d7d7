"""Clips of three frames made from one still image and its mask: what GSFM is pre-trained on (stage 0).

::

    <data_root>/<name>.jpg + <name>.png            layout='flat': DUTS, ECSSD, BIG, HRSOD
    <data_root>/<class>/<n>.jpg + <n>.png          layout='classes': FSS-1000
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.given_masks import MASKS, video_names
from mmseg.datasets.picture_changes import (
    ColourJitter,
    Motion,
    Recolouring,
    affine,
    crop_corner,
    grey,
    mirrored,
    resized_short_side,
    to_array,
)
from mmseg.datasets.thin_plate import draw_control_points, thin_plate_maps, warp
from mmseg.datasets.video_files import VideoFiles
from mmseg.datasets.video_layout import VIDEO, PictureFolders
from mmseg.datasets.vos_clips import CLIP, IMG_NORM_CFG, normalised
from mmseg.errors import DataError
from mmseg.images import FRAMES, LABEL_MAPS, check_same_size, read_frame
from mmseg.registry import DATASETS
from mmseg.values import PositiveInt, Text

_OF_CLIP, _OF_FRAME = ColourJitter(0.1, 0.05, 0.05, 0.05), ColourJitter(0.1, 0.05, 0.05)
_FRAMES = (".jpg", ".jpeg")
_WARPED = 0.33  # share of the frames
_NAMED = 3
_HALF = 127  # of the grey levels


@DATASETS.register_module()
class StaticImageDataset(VideoDataset):
    """Still images with a mask of one object, each an item.

    A sample has ``img`` (3, 3, S, S) float32, ``gt`` (3, 1, S, S) float32, the mask, soft at its border,
    ``gt_semantic_seg`` (3, 1, S, S) int64, 1 where that is above 1/2, and ``img_metas``.

    Args:
        data_root: folder of the images.
        layout: 'flat', or 'classes' for a folder per class.
        crop_size: S.
        test_mode: always False.
        frames_dir, masks_dir: folders in `data_root`, where images and masks are not side by side.
        frame_suffix, mask_suffix: ends of their names, see :class:`PictureFolders`.

    Raises:
        DataError: no images, or one without mask.
    """

    background = 0

    img_norm_cfg = IMG_NORM_CFG

    def __init__(
        self,
        data_root: str | Path,
        layout: Literal["flat", "classes"] = "flat",
        crop_size: PositiveInt = 384,
        test_mode: Literal[False] = False,
        frames_dir: str = "",
        masks_dir: str = "",
        frame_suffix: Text | None = None,
        mask_suffix: Text | None = None,
    ) -> None:
        self.data_root, self.crop_size = Path(data_root), crop_size
        images, masks = self.data_root / frames_dir, self.data_root / masks_dir
        inner = [""] if layout == "flat" else video_names(images)
        pairs: dict[str, tuple[str, str | None]] = {}
        for name in inner:
            found = _pictures(images / name, _FRAMES if frame_suffix is None else FRAMES, frame_suffix, mask_suffix)
            of_stem = _pictures(masks / name, MASKS if mask_suffix is None else LABEL_MAPS, mask_suffix, frame_suffix)
            pairs.update((f"{name}/{stem}".lstrip("/"), (path, of_stem.get(stem))) for stem, path in found.items())
        missing = [path for path, mask in pairs.values() if mask is None]
        if missing or not pairs:
            first = ", ".join(missing[:_NAMED])
            raise DataError(
                f"{images}: {len(missing)} images without mask: {first}" if missing else f"{images}: no images",
                f"<name>{frame_suffix or '.jpg'} and, in {masks}, <name>{mask_suffix or '.png'}"
                + ("" if layout == "flat" else ", in a folder per class"),
                "extract the data set again, or check data_root, layout, masks_dir and the suffixes",
            )
        videos = [VideoFiles.of(name, [path], [mask]) for name, (path, mask) in pairs.items()]
        super().__init__(videos, reduce_zero_label=False)

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """See :class:`StaticImageDataset` for what it holds, :meth:`VideoDataset.clip` for arguments and errors."""
        return self.drawn(index, _Draws(rng))

    def drawn(self, index: int, draws: StillDraws) -> dict[str, Any]:
        """A sample with chances of any source, see :meth:`clip`."""
        video = self.videos[index]
        image, mask = read_frame(video.frames[0]), _read_grey(video.labels[0])
        check_same_size(image, mask, video.labels[0])
        pairs = self._changed(Image.fromarray(image[..., ::-1].copy()), Image.fromarray(mask), draws)
        soft = torch.from_numpy(to_array([mask for _, mask in pairs]))[:, None].float() / 255  # (3, 1, S, S)
        return {
            "img": normalised(to_array([image for image, _ in pairs])),
            "gt": soft,
            "gt_semantic_seg": (soft > 0.5).long(),
            "img_metas": {"video": video.name, "filename": video.frames[0]},
        }

    def read_label(self, path: str) -> np.ndarray:
        """1 where the mask, which may be soft, has the object. Raises DataError if it cannot be read."""
        return (_read_grey(path) > _HALF).astype(np.uint8)

    def _changed(self, image: Image.Image, mask: Image.Image, draws: StillDraws) -> list[tuple[np.ndarray, np.ndarray]]:
        """The frames (S, S, 3) RGB and masks (S, S) of a clip, uint8, of an image and its mask."""
        shared = draws.of_clip()
        image, mask = (affine(one, 0.0, shared.scale, 0.0) for one in (image, mask))
        if shared.mirror:
            image, mask = mirrored(image), mirrored(mask)
        image = shared.recolour(image)
        image = grey(image) if shared.grey else image
        return [self._moved(image, mask, draws) for _ in range(CLIP)]

    def _moved(self, image: Image.Image, mask: Image.Image, draws: StillDraws) -> tuple[np.ndarray, np.ndarray]:
        """One frame and its mask."""
        side, motion = self.crop_size, draws.motion()
        image, mask = (affine(one, *motion, Resampling.BICUBIC) for one in (image, mask))
        image = resized_short_side(image, side, Resampling.BICUBIC)
        mask = resized_short_side(mask, side, Resampling.NEAREST)
        (left, top), recolour = draws.crop(image.size, side)
        box = (left, top, left + side, top + side)
        pixels, labels = np.asarray(recolour(image.crop(box))), np.asarray(mask.crop(box))
        points = draws.warp(side)
        if points is not None:
            maps = thin_plate_maps(*points, (side, side))
            pixels, labels = warp(pixels, maps), warp(labels, maps, is_mask=True)
        return pixels, labels


class OfStill(NamedTuple):
    """What the frames of a clip have in common."""

    scale: float
    mirror: bool
    recolour: Recolouring
    grey: bool


class StillDraws(Protocol):
    """Where the chances of a clip come from, in the order in which they are asked for."""

    def of_clip(self) -> OfStill: ...

    def motion(self) -> Motion: ...

    def crop(self, size: tuple[int, int], side: int) -> tuple[tuple[int, int], Recolouring]:
        """Corner (left, top) of a square in an image of `size` (width, height), and what becomes of its colours."""

    def warp(self, side: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Control points, see :func:`draw_control_points`; None for no warp."""


class _Draws:
    """The chances of training."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def of_clip(self) -> OfStill:
        rng = self.rng
        return OfStill(rng.uniform(0.8, 1.5), rng.random() < 0.5, _OF_CLIP.draw(rng), rng.random() < 0.05)

    def motion(self) -> Motion:
        return Motion(self.rng.uniform(-20, 20), self.rng.uniform(0.9, 1.1), self.rng.uniform(-10, 10))

    def crop(self, size: tuple[int, int], side: int) -> tuple[tuple[int, int], Recolouring]:
        return crop_corner(size, side, self.rng), _OF_FRAME.draw(self.rng)

    def warp(self, side: int) -> tuple[np.ndarray, np.ndarray] | None:
        return draw_control_points(side, self.rng) if self.rng.random() < _WARPED else None


def _pictures(folder: Path, suffixes: Sequence[str], suffix: str | None, other: str | None) -> dict[str, str]:
    """The pictures of one kind in a folder, by their names without suffix."""
    return PictureFolders(folder.parent, VIDEO, suffixes, suffix, other).of(folder.name) or {}


def _read_grey(path: str) -> np.ndarray:
    """A mask as grey levels (H, W) uint8, whatever kind of picture it is."""
    return cv2.cvtColor(read_frame(path), cv2.COLOR_BGR2GRAY)
