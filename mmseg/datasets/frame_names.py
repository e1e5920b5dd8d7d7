"""Names of frames with flow and masks (HFAN): which video a frame belongs to, and pictures at any depth of a folder."""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from mmseg.datasets.vspw import read_split
from mmseg.errors import ConfigError, DataError
from mmseg.images import FRAMES, LABEL_MAPS, list_pictures, natural_key

logger = logging.getLogger("mmseg.datasets")

FRAME, MASK = ".jpg", ".png"


def check_suffixes(suffixes: Sequence[str]) -> None:
    """Raise ConfigError for the end of a name that no frame, flow picture or mask can have."""
    for key, suffix, known in zip(
        ("img_suffix", "flow_suffix", "seg_map_suffix"), suffixes, (FRAMES, FRAMES, LABEL_MAPS)
    ):
        if posixpath.splitext(f"x{suffix}")[1].lower() not in known:
            raise ConfigError(f"{key}={suffix!r}", f"the end of a name with {', '.join(known)}", "correct it")


def find_frames(folder: str | Path, suffix: str = FRAME) -> dict[str, str]:
    """:func:`find_files` for frames: as published, those of other spelling (``.JPG``) count only if all are so."""
    found = find_files(folder, suffix)
    spelt = {stem: name for stem, name in found.items() if name.endswith(suffix)}
    if spelt and len(spelt) < len(found):
        other = next(name for name in found.values() if not name.endswith(suffix))
        logger.warning("%s: %d files like %s are not taken for frames", folder, len(found) - len(spelt), other)
    return spelt or found


def find_files(folder: str | Path, suffix: str) -> dict[str, str]:
    """Pictures at any depth of a folder: path without suffix -> path, both relative to it, in natural order.

    Args:
        folder: may be missing.
        suffix: what the names of these pictures end with, in any case.

    Raises:
        DataError: two pictures have the same stem, or a folder cannot be read.
    """
    found: dict[str, str] = {}
    ending = posixpath.splitext(f"x{suffix}")[1].lower()
    for root, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(root, folder).replace(os.sep, "/")
        names = [name for name in list_pictures(root, (ending,)) or () if name.lower().endswith(suffix.lower())]
        names = [posixpath.normpath(posixpath.join(inner, name)) for name in names]
        found.update((name[: -len(suffix)], name) for name in names)
    return {stem: found[stem] for stem in sorted(found, key=natural_key)}


def no_frames(folder: str | Path, suffix: str) -> DataError:
    """The error for a folder without frames."""
    return DataError(
        f"{folder}: {'no frames in it' if os.path.isdir(folder) else 'no such folder'}",
        f"a folder with frames, {suffix}",
        "set data_root, img1_dir (frames) and img_suffix to where and what they are; docs/hfan.md shows the layout",
    )


def read_names(path: str | Path) -> list[str]:
    """Frames that a split file names, one a line without suffix. Raises DataError, see :func:`read_split`."""
    return list(dict.fromkeys(line.name for line in read_split(Path(path))))


def frame_name(stem: str) -> tuple[str, str]:
    """Video and name of a frame from its path relative to the folder of frames, without suffix.

    ``bear_00007`` and ``bear/00007`` are frame ``00007`` of ``bear``.
    """
    folder, stem = posixpath.split(stem.replace(os.sep, "/"))
    match = re.fullmatch(r"(.+)_(\d+)", stem)
    if match is None:
        return folder or "frames", stem
    video, number = match.groups()
    if not folder or posixpath.basename(folder) == video:
        return folder or video, number
    return f"{folder}/{video}", number


def by_video(names: Sequence[str]) -> dict[str, list[str]]:
    """Frames by their video, both in the order in which they come."""
    videos: dict[str, list[str]] = {}
    for name in names:
        videos.setdefault(frame_name(name)[0], []).append(name)
    return videos
