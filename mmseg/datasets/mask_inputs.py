"""Masks of objects for any video: one picture for its first frame, or a folder with masks that are named as frames."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.errors import DataError
from mmseg.images import LABEL_MAPS, list_pictures, read_mask
from mmseg.structures import Frame

logger = logging.getLogger("mmseg.datasets")


class GivenMasks:
    """The masks that are shown to a model which follows objects. Pixel = id of an object, 0 background.

    A mask of nothing but 0 and 255 is one object, with the id 1.

    Args:
        path: a mask for the first frame; or a folder of masks, or of folders ``<video>/`` of them. A mask belongs to
            the frame whose name it has; of two numbers the value counts: ``00007.png`` is for frame ``000007``.

    Raises:
        DataError: it is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.is_folder = self.path.is_dir()
        if not self.path.exists():
            raise DataError(f"no mask {path}", "a PNG of object ids, or a folder of them", "check the path")
        if not self.is_folder:
            read_mask(self.path)  # what is no mask is told before a video is opened

    def files(self, video: str, several: bool = False) -> dict[str, Path] | None:
        """The masks of a video by their stems; None: the one mask is for its first frame.

        Args:
            video: its name.
            several: there are other videos, too, so that the folder itself cannot mean this one.

        Raises:
            DataError: there are none.
        """
        if not self.is_folder:
            return None
        own = self.path / video
        folder = own if own.is_dir() or several else self.path
        names = list_pictures(folder, LABEL_MAPS) or []
        if not names:
            raise DataError(
                f"no masks for video {video!r} in {folder}",
                f"masks named as frames in {own}" + ("" if several else f", or in {self.path}"),
                "give the masks, or leave the video out",
            )
        return {os.path.splitext(name)[0]: folder / name for name in names}

    def shown(self, frames: Iterable[Frame], video: str, several: bool = False) -> Iterator[Frame]:
        """The frames of a video, with the masks that belong to them.

        Raises:
            DataError: no mask, one that does not fit its frame, or one without an object where it is the only one; and,
                after the last frame, if no mask was for any frame.
        """
        files = self.files(video, several)
        left = None if files is None else _by_name(files)
        number = -1
        for number, frame in enumerate(frames):
            path = (self.path if number == 0 else None) if left is None else left.pop(_key(frame.name, left), None)
            if path is not None:
                frame.given = _read(path, frame, alone=left is None)
            yield frame
        if left and len(left) == len(files):
            raise DataError(
                f"none of the {len(files)} masks in {next(iter(files.values())).parent} is for a frame of {video!r}",
                f"masks that are named as frames; the last frame is {frame.name!r}",
                "rename the masks",
            )
        if left:
            some = ", ".join(path.name for path in list(left.values())[:5])
            logger.warning("%s: %d masks are for no frame and were not used: %s", video, len(left), some)

    def __str__(self) -> str:
        return str(self.path)


def _by_name(files: dict[str, Path]) -> dict[str | int, Path]:
    """The files by what :func:`_key` gives for the name of their frame."""
    if all(stem.isdecimal() for stem in files) and len({int(stem) for stem in files}) == len(files):
        return {int(stem): path for stem, path in files.items()}
    return dict(files)


def _key(name: str, masks: dict[str | int, Path]) -> str | int:
    numbered = name.isdecimal() and isinstance(next(iter(masks), ""), int)
    return int(name) if numbered else name


def _read(path: Path, frame: Frame, alone: bool) -> np.ndarray:
    """The object ids (H, W) uint8 of a mask."""
    mask = fitted_mask(read_mask(path), frame.image.shape[:2], path, warn=True)
    if mask.any() and not (mask % 255).any():
        logger.info("%s: 255 is the object 1", path)
        mask = (mask > 0).astype(np.uint8)
    if alone and not mask.any():
        raise DataError(f"{path}: no object in the mask", "object ids that are not 0", "paint an object")
    return mask
