"""Folders of videos, one picture per frame: found and listed, whichever of the usual layouts they have.

::

    <folder>/<video>/<frame>.png         one folder per video
    <folder>/<video>_<number>.png        all in one folder, as in DAVIS2SEG
    <folder>/<split>/<video>_<number>    several such folders: videos are called <split>/<video>
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from mmseg.errors import DataError
from mmseg.files import read_bytes
from mmseg.images import PICTURES, list_pictures, natural_key

MASKS = (".png",)
_FLAT = re.compile(r"(.+)_(\d+)")
_MAX_LIST_BYTES = 2**26

Tree = dict[str, dict[str, Path]]
"""Video -> name of a frame (the stem of its file) -> file; both in natural order."""


def picture_tree(folder: str | Path, suffixes: Collection[str] = PICTURES, inner: Collection[str] = ()) -> Tree:
    """The videos in a folder. Only names are read; folders without pictures do not count.

    Args:
        folder: of all videos.
        suffixes: of the pictures, in lower case.
        inner: sub-folders that are looked at in place of `folder`, the first that exists, e.g. ``Annotations/480p``.

    Raises:
        DataError: there is no such folder, or no video in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "a folder with one folder of pictures per video", "check the path")
    root = next((root / part for part in inner if (root / part).is_dir()), root)
    names = sorted((entry.name for entry in os.scandir(root) if entry.is_dir()), key=natural_key)
    tree: Tree = {}
    for name in names:
        if not name.startswith("."):
            tree.update(_videos_of(name, _listed(root / name, suffixes)))
    if not tree:
        tree = _flat_videos(_listed(root, suffixes))
    if not tree:
        raise DataError(
            f"{root}: no pictures ({', '.join(suffixes)}) in its folders",
            "<video>/<frame>, or <video>_<number> in one folder",
            "check the path; give the folder that holds the folders of the videos",
        )
    return tree


def _listed(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    return {os.path.splitext(name)[0]: folder / name for name in list_pictures(folder, suffixes) or ()}


def _videos_of(name: str, frames: dict[str, Path]) -> Tree:
    """The video of a folder; or its videos, if the names of all frames say that there are several."""
    flat = _flat_videos(frames)
    if len(flat) > 1 and sum(map(len, flat.values())) == len(frames):
        return {f"{name}/{video}": own for video, own in flat.items()}
    return {name: frames} if frames else {}


def _flat_videos(files: dict[str, Path]) -> Tree:
    tree: Tree = {}
    for stem, path in files.items():
        if match := _FLAT.fullmatch(stem):
            tree.setdefault(match[1], {})[match[2]] = path
    return tree


def read_video_list(path: str | Path) -> list[str]:
    """The videos that a text file names: one name a line, or "frame mask" pairs as in the lists of DAVIS-2016.

    Raises:
        DataError: it cannot be read as text, or names no video.
    """
    return list(dict.fromkeys(map(_video_of, read_lines(path, "videos"))))


def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a text file that are not empty, without blanks around them.

    Args:
        path: of the file.
        what: is listed there, for messages.

    Raises:
        DataError: it cannot be read as text, or has no such line.
    """
    try:
        lines = [line.strip() for line in read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as text ({error.reason})", f"a list of {what}", "fix it") from error
    if not any(lines):
        raise DataError(f"{path} names no {what}", "one name a line", "fill it, or do without")
    return [line for line in lines if line]


def _video_of(line: str) -> str:
    """The video of a line: a name, which may have blanks in it, or a path to one of its frames and what follows."""
    entry = line.split()[0]
    stem, suffix = os.path.splitext(entry)
    return Path(stem).parent.name if suffix.lower() in PICTURES and "/" in entry else line


def chosen(tree: Tree, names: Collection[str], folder: str | Path) -> Tree:
    """The videos `names` of a tree, in that order.

    Raises:
        DataError: one of them is not there.
    """
    missing = [name for name in names if name not in tree]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} videos are missing: {', '.join(missing[:5])}",
            "a folder for each of them",
            "check the path, or leave them out of the list",
        )
    return {name: tree[name] for name in names}
