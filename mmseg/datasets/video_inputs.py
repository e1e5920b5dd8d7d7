"""Which videos a user means: files, folders, patterns, lists, cameras and addresses become named videos.

Pictures of one folder are one video. A folder of videos, or of folders with pictures, is many. What could be read in
two ways is an error and never a mixture. No video is opened here.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmseg.datasets.video_reader import is_address, shown
from mmseg.errors import DataError
from mmseg.files import read_bytes
from mmseg.images import FRAMES, list_pictures, natural_key
from mmseg.writing.result_folder import RECORD

logger = logging.getLogger("mmseg.datasets")

VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".mjpeg", ".y4m", ".gif"),
)
_LISTS = (".txt",)
_VSPW = "origin"  # where VSPW keeps the frames of a video, beside their masks

Input = str | Path | int


@dataclass(frozen=True)
class VideoInput:
    """One video that a user has named.

    Attributes:
        name: unique among the videos that were named together; it may have parts joined by "/".
        place: the file, folder, address or camera, for messages.
        source: a file or address, the number of a camera, or the files of pictures in order.
        names: what it could be called, the shortest first.
    """

    name: str
    place: str
    source: str | int | tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Picture:
    """A picture that was named by itself, by a pattern or in a list."""

    path: str


def find_videos(inputs: Input | Iterable[Input]) -> list[VideoInput]:
    """The videos that `inputs` name, in order, each once.

    Args:
        inputs: one or several of: a video file; a folder of pictures, of videos, or of folders of pictures
            (``DIR/<video>/0001.jpg``); a pattern such as ``clips/*.mp4`` or ``frames/*.jpg``, also ``**``; a list (.txt
            with one of these in each line, relative to the list or to the current folder; ``#`` starts a comment), or
            a pattern of lists (``lists/*.txt``); the number of a camera; an address (``rtsp://...``, ``http://...``).
            ``~`` is the home folder.

    Raises:
        DataError: something is not there, holds no video, or pictures and videos are mixed.
    """
    inputs = [inputs] if isinstance(inputs, str | Path | int) else list(inputs)
    place = _some([shown(given) for given in inputs])
    found = _unmixed(place, [item for given in inputs for item in _expanded(given)])
    if not found:
        raise DataError("no video is given", "at least one video", "name a file, folder, pattern, list or camera")
    return _with_unique_names(found)


def _expanded(given: Input) -> list[VideoInput | _Picture]:
    """The videos and loose pictures that one argument stands for."""
    if isinstance(given, int):
        return [_camera(given)]
    text = str(given)
    if is_address(given):
        return [VideoInput("stream", shown(text), text, ("stream",))]
    text = text if os.path.lexists(text) else os.path.expanduser(text)  # in a list or a quoted pattern no shell does it
    path = Path(text)
    if list_pictures(path, ()) is not None:
        return _of_folder(path)
    if path.is_file():
        return _of_list(path) if path.suffix.lower() in _LISTS else [_of_file(path)]
    device = re.fullmatch(r"(?:/dev/video)?(\d+)", text)
    if device:
        return [_camera(int(device[1]))]
    if glob.has_magic(text):
        return _of_pattern(text)
    raise DataError(
        f"{text!r} does not exist, or is no file and no folder",
        "a video file, a folder of pictures or of videos, a pattern, a list (.txt), a camera number or an address",
        "check the path",
    )


def _camera(number: int) -> VideoInput:
    return VideoInput(f"camera{number}", f"camera {number}", number, (f"camera{number}",))


def _of_file(path: Path) -> VideoInput | _Picture:
    if path.suffix.lower() in FRAMES:
        return _Picture(str(path))
    names = _names(path, path.stem)
    return VideoInput(names[0], str(path), str(path), (*names, f"{names[0]}_{path.suffix[1:]}"))


def _of_pictures(paths: Sequence[str], place: str | Path, named: Path | None = None) -> VideoInput:
    """Pictures of one folder, which gives the name, unless another is named."""
    folder = Path(os.path.abspath(named or Path(paths[0]).parent))
    names = _names(folder, folder.name)
    return VideoInput(names[0], str(place), tuple(paths), names)


def _names(path: Path, name: str) -> tuple[str, ...]:
    """Ever longer names, with the folders around it."""
    parents = Path(os.path.abspath(path)).parent.parts[1:]
    # results of `.dog.mp4` shall neither be hidden nor be taken for files that grow
    parts = [part.lstrip(".") or "video" for part in (*parents, name)]
    return tuple("/".join(parts[n:]) for n in reversed(range(len(parts))))


def _of_folder(folder: Path) -> list[VideoInput]:
    """The one video or the many videos of a folder."""
    pictures, videos = _contents(folder)
    if pictures and Path(pictures[0]).parent != folder:
        return [_of_pictures(pictures, folder, folder)]
    below = {sub: _contents(sub) for sub in sorted(_folders(folder), key=lambda path: natural_key(path.name))}
    filled = [sub.name for sub, contents in below.items() if any(contents)]
    if (pictures and filled) or (videos and any(frames for frames, _ in below.values())):
        raise _mixture(str(folder), "pictures" if pictures else "videos", f"folders of pictures ({_some(filled)})")
    if pictures:
        return [_of_pictures(pictures, folder)]
    found = [_of_file(path) for path in videos]
    for sub, (frames, files) in below.items():
        found += [_of_pictures(frames, sub, sub)] if frames else map(_of_file, files)
    if not found:
        raise DataError(
            f"folder {folder} holds no pictures and no videos, and neither do the folders in it",
            f"pictures ({', '.join(FRAMES)}), videos ({', '.join(VIDEOS[:6])} ...), or folders of pictures",
            f"check the path, or give a pattern such as '{folder}/*/*/*.jpg'",
        )
    if filled and len(filled) < len(below):
        empty = [sub.name for sub in below if sub.name not in filled]
        logger.warning("%s: no pictures in %d of its folders: %s", folder, len(empty), _some(empty))
    return found


def _contents(folder: Path) -> tuple[list[str], list[Path]]:
    """(pictures, video files) of a folder, of which one is empty; of VSPW's folder in it if both are."""
    pictures = [str(folder / name) for name in list_pictures(folder, FRAMES) or ()]
    names = [name for name in os.listdir(folder) if not name.startswith(".") and name.lower().endswith(VIDEOS)]
    videos = [folder / name for name in sorted(names, key=natural_key) if (folder / name).is_file()]
    if pictures and videos:
        raise _mixture(str(folder), f"{len(pictures)} pictures", f"{len(videos)} videos ({_some(names)})")
    if not pictures and not videos and list_pictures(folder / _VSPW, FRAMES):
        return _contents(folder / _VSPW)
    return pictures, videos


def _folders(folder: Path) -> list[Path]:
    """The folders in it, without those of results, which are there where ``--out`` is the folder of the videos."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    found = [folder / name for name in names]
    return [sub for sub in found if not (sub / RECORD).is_file() or list_pictures(sub, FRAMES)]


def _of_pattern(pattern: str) -> list[VideoInput | _Picture]:
    """What matches; files of other kinds are left out, unless there is nothing else."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True), key=natural_key)]
    known = [path for path in matches if path.is_dir() or path.name.lower().endswith((*VIDEOS, *FRAMES))]
    if not matches:
        hint = "; a [ that belongs to a name is written [[]" if "[" in pattern else ""
        raise DataError(
            f"nothing matches the pattern {pattern!r}", "videos, pictures or folders", f"check the pattern{hint}"
        )
    if pattern.lower().endswith(_LISTS):
        return [item for path in matches for item in _expanded(path)]
    files = [_of_file(path) for path in known or matches if path.is_file()]
    if files:
        inner = {path.parent for path in matches}  # with ** folders are matched as well as what is in them
        folders = [str(path) for path in matches if path.is_dir() and path not in inner and any(_contents(path))]
        if folders:
            raise _mixture(pattern, f"{len(files)} files", f"{len(folders)} folders ({_some(folders)})")
        return files
    return [video for path in matches for video in _of_folder(path)]


def _of_list(path: Path) -> list[VideoInput | _Picture]:
    """What the lines of a list name, in their order."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"list {path} is no UTF-8 text", "one path in each line", "save it as UTF-8") from error
    found: list[VideoInput | _Picture] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not is_address(text) and os.path.lexists(path.parent / text):
            text = str(path.parent / text)
        if Path(text).suffix.lower() in _LISTS:
            raise DataError(f"{path}, line {number}: a list in a list", "paths of videos", "put its lines here")
        try:
            found += _expanded(text)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error.found}", error.expected, error.action) from error
    if not found:
        raise DataError(f"list {path} names nothing", "one path in each line", "write the videos into it")
    return _unmixed(str(path), found)


def _unmixed(place: str, items: Sequence[VideoInput | _Picture]) -> list[VideoInput]:
    """Loose pictures become one video for each of their folders. Raises DataError for them beside videos."""
    loose = [item.path for item in items if isinstance(item, _Picture)]
    if not loose:
        return list(items)
    if len(loose) < len(items):
        raise _mixture(place, f"{len(loose)} pictures", f"{len(items) - len(loose)} videos")
    folders: dict[str, list[str]] = {}
    for path in dict.fromkeys(loose):
        folders.setdefault(os.path.dirname(os.path.abspath(path)), []).append(path)
    for paths in folders.values():
        stem, count = Counter(Path(path).stem for path in paths).most_common(1)[0]
        if count > 1:
            raise DataError(
                f"{place}: {count} pictures {Path(paths[0]).parent / stem}.*",
                "one picture for each stem, since results are found by it",
                "leave one of them out",
            )
    if len(loose) == 1:
        path = Path(loose[0])
        return [VideoInput(path.stem, str(path), (str(path),), _names(path, path.stem))]
    return [_of_pictures(paths, place) for paths in folders.values()]


def _mixture(place: str, one: str, other: str) -> DataError:
    return DataError(
        f"{place}: {one} and {other}, which could be one video or several",
        "the pictures of one video, or videos, or one folder of pictures for each video",
        "name what is meant, e.g. by a pattern ('DIR/*.jpg', 'DIR/*.mp4')",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _with_unique_names(videos: Sequence[VideoInput]) -> list[VideoInput]:
    """Each video once, under the shortest of its names that no other has; numbered where that does not suffice."""
    first: dict[object, VideoInput] = {}
    for video in videos:
        first.setdefault(_identity(video), video)
    videos = list(first.values())
    level = [0] * len(videos)
    while True:
        names = [video.names[at] for video, at in zip(videos, level)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        longer = [i for i, name in enumerate(names) if name in shared and level[i] + 1 < len(videos[i].names)]
        if not longer:
            break
        for i in longer:
            level[i] += 1
    taken: Counter[str] = Counter()
    for i, name in enumerate(names):
        taken[name] += 1
        while taken[name] > 1 and f"{name}_{taken[name]}" in names:  # the name of another one
            taken[name] += 1
        names[i] = name if taken[name] == 1 else f"{name}_{taken[name]}"
    return [replace(video, name=name) for video, name in zip(videos, names)]


def _identity(video: VideoInput) -> object:
    """Two inputs of the same identity are the same video."""
    if isinstance(video.source, tuple):
        return tuple(map(os.path.abspath, video.source))
    return video.source if isinstance(video.source, int) or is_address(video.source) else os.path.abspath(video.source)
