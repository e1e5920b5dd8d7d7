"""Masks of objects for any video: one picture for its first frame, or a folder with masks that are named as frames."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmseg.datasets.transforms.geometry import fitted_mask
from mmseg.errors import DataError
from mmseg.evaluation.davis import soft_levels
from mmseg.images import LABEL_MAPS, list_pictures, read_mask
from mmseg.structures import Frame

logger = logging.getLogger("mmseg.datasets")


class GivenMasks:
    """The masks that are shown to a model which follows objects. Pixel = id of an object, 0 background.

    A mask of nothing but 0 and 255 is one object, with the id 1.

    Args:
        path: a mask for the first frame; or a folder of masks, or of folders ``<video>/`` of them. A mask belongs to
            the frame whose name it has; frames of video files have their number as a name, for which the number at the
            end of the mask's counts: ``00007.png`` or ``frame_7.png`` are for frame ``000007``.

    Attributes:
        ids: of the one mask, 0 if there is background; None of a folder.

    Raises:
        DataError: it is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.is_folder = self.path.is_dir()
        if not self.path.exists():
            raise DataError(f"no mask {path}", "a PNG of object ids, or a folder of them", "check the path")
        # read now: what is no mask is told before a video is opened
        self.ids = None if self.is_folder else np.unique(_one_object(read_mask(self.path))).tolist()

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
        left, empty = dict(files or {}), True
        numbers = numbers_of(left)
        for number, frame in enumerate(frames):
            stem = numbers.get(int(frame.name)) if frame.name.isdecimal() and frame.name not in left else frame.name
            path = left.pop(stem, None) if files is not None else self.path if number == 0 else None
            if path is not None:
                frame.given = _read(path, frame, alone=files is None)
                empty = empty and not frame.given.any()
            yield frame
        if left and len(left) == len(files):
            raise DataError(
                f"none of the {len(files)} masks in {next(iter(files.values())).parent} is for a frame of {video!r}",
                f"masks that are named as frames; the last frame is {frame.name!r}",
                "rename the masks, or take the frames that they are for (--every, --max-frames)",
            )
        if empty and files:
            raise DataError(
                f"no object in the {len(files) - len(left)} masks in {next(iter(files.values())).parent} that are for "
                f"frames of {video!r}",
                "object ids that are not 0 in one of them at least",
                "paint an object, take frames that show one (--every, --max-frames), or leave the video out",
            )
        if left:
            some = ", ".join(path.name for path in list(left.values())[:5])
            logger.warning("%s: %d masks are for no frame and were not used: %s", video, len(left), some)

    def __str__(self) -> str:
        return str(self.path)


def numbers_of(stems: Iterable[str]) -> dict[int, str]:
    """The stems by the number at their end; none if they differ in more than that, or two have the same."""
    found = [re.fullmatch(r"(.*?)(\d+)", stem) for stem in stems]
    if not all(found) or len({match[1] for match in found}) > 1 or len({int(match[2]) for match in found}) < len(found):
        return {}
    return {int(match[2]): match[0] for match in found}


def _read(path: Path, frame: Frame, alone: bool) -> np.ndarray:
    """The object ids (H, W) uint8 of a mask."""
    mask = fitted_mask(read_mask(path), frame.image.shape[:2], path, warn=True)
    tell_of_soft_mask(mask, path)
    if alone and not mask.any():
        raise DataError(f"{path}: no object in the mask", "object ids that are not 0", "paint an object")
    return _one_object(mask)


def tell_of_soft_mask(mask: np.ndarray, path: str | Path) -> None:
    """Warn of a mask (H, W) uint8 with edges of many levels of grey, each of which is an object then."""
    if levels := soft_levels(mask):
        logger.warning(
            "%s: %d objects, most of them on few pixels. If it was resized, or stored with loss (JPEG), these are its "
            "soft edges: store ids alone, for one object (mask > 127)",
            *(path, levels),
        )


def _one_object(mask: np.ndarray) -> np.ndarray:
    """A mask of nothing but 0 and 255 with 1 in place of 255, which could be taken for ignored pixels."""
    return mask if not mask.any() or (mask % 255).any() else (mask > 0).astype(np.uint8)
