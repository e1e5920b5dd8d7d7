"""Where the frames and masks of videos lie: the folders and names of VSPW, or others."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from mmseg.datasets.video_files import VideoFiles
from mmseg.errors import ConfigError, DataError
from mmseg.images import list_pictures, natural_key

VIDEO = "{video}"
FLAT_NAMES = r"(.+)[_-]\d+"
_NAMED = 5  # files at most, in a message

logger = logging.getLogger("mmseg.datasets")

_Named = dict[str, str]  # what stands before the suffix -> path, in natural order


class PictureFolders:
    """The pictures of one kind, frames or masks, of all videos below a data root.

    Args:
        root: the data root.
        folder: relative to it. With ``{video}`` in its name it is that of one video; without, it holds one folder per
            video, or the pictures of all videos, whose names say which video they belong to.
        suffixes: endings of pictures of this kind.
        suffix: end of their names, as ``_leftImg8bit.png``; None: the ending alone.
        other_suffix: names that end so are of the other kind, though they may end with `suffix`, too.
        pattern: regular expression for what stands before the suffix in a folder of all videos; its group is the name
            of the video.

    Raises:
        ConfigError: a suffix that no such picture has, or a pattern without one group.
    """

    def __init__(
        self,
        root: Path,
        folder: str,
        suffixes: Sequence[str],
        suffix: str | None = None,
        other_suffix: str | None = None,
        pattern: str = FLAT_NAMES,
    ) -> None:
        self.root, self.template, self.suffixes, self.suffix = root, folder, tuple(suffixes), suffix
        self._other = other_suffix if suffix is None or len(other_suffix or "") > len(suffix) else None
        if suffix is not None:
            ending = os.path.splitext(f"x{suffix}")[1].lower()
            if ending not in suffixes:
                raise ConfigError(f"suffix {suffix!r}", f"the end of a name with {', '.join(suffixes)}", "correct it")
            self.suffixes = (ending,)
        try:
            self._pattern = re.compile(pattern)
        except re.error:
            self._pattern = None
        if self._pattern is None or self._pattern.groups != 1:
            raise ConfigError(
                f"video_pattern={pattern!r}", "a regular expression with one group, as (.+)_[0-9]+", "correct it"
            )

    @cached_property
    def flat(self) -> dict[str, _Named] | None:
        """The videos of a folder that holds the pictures of all of them; None if there are folders of videos."""
        if VIDEO in self.template:
            return None
        videos: dict[str, _Named] = {}
        for stem, path in (self._listed(os.path.join(self.root, self.template)) or {}).items():
            match = self._pattern.fullmatch(stem)
            if match is None or not match[1]:
                raise DataError(
                    f"{path}: no name of a video in {stem!r} by {self._pattern.pattern!r}",
                    "<video>_<number>, or names that fit video_pattern",
                    "set video_pattern in the data set, a regular expression whose group is the name of the video",
                )
            videos.setdefault(match[1], {})[stem] = path
        if videos:
            self._tell_of_folders()
        return videos or None

    def _tell_of_folders(self) -> None:
        """Warn of folders beside the pictures of a flat folder: they may be those of the videos."""
        folder = os.path.join(self.root, self.template)
        inner = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
        inner = [name for name in inner if list_pictures(os.path.join(folder, name), self.suffixes)]
        if inner:
            logger.warning(
                "%s holds pictures and folders of pictures (%s): the folders are not looked into, and the names of the "
                "pictures say which video they belong to. If each folder is a video, say %s/{video}",
                *(folder, min(inner), self.template),
            )

    def folder(self, video: str) -> str:
        """The folder that holds the pictures of a video."""
        if self.flat is not None:
            return os.path.join(self.root, self.template)
        template = self.template if VIDEO in self.template else os.path.join(self.template, VIDEO)
        return os.path.join(self.root, template.replace(VIDEO, video))

    def of(self, video: str) -> _Named | None:
        """The pictures of a video by what stands before the suffix; None if there is no folder of it."""
        return self._listed(self.folder(video)) if self.flat is None else self.flat.get(video)

    def videos(self) -> list[str]:
        """The names of all videos, in natural order. Raises DataError if there are none."""
        if self.flat is not None:
            return sorted(self.flat, key=natural_key)
        above = self.folder("\0").split("\0")[0]
        names = os.listdir(above) if os.path.isdir(above) else ()
        found = [name for name in names if not name.startswith(".") and self.of(name)]
        if not found:
            raise DataError(f"no videos in {above}", f"pictures {self.folder('<video>')}/*", "check data_root")
        return sorted(found, key=natural_key)

    def _listed(self, folder: str) -> _Named | None:
        names = list_pictures(folder, self.suffixes)
        if names is None:
            return None
        if self._other is not None:
            names = [name for name in names if not name.endswith(self._other)]
        if self.suffix is None:
            return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in names}
        end = len(self.suffix)
        return {name[:-end]: os.path.join(folder, name) for name in names if name.lower().endswith(self.suffix.lower())}


def named_roots(data_root: str | Path | Sequence[str | Path], expected: str) -> dict[str, Path]:
    """One data root or several, by what stands before the names of their videos.

    That is nothing for a single one, else the path from the folder that holds all of them.

    Args:
        data_root: of a data set.
        expected: what it is, for the message.

    Raises:
        DataError: one is no folder.
        ConfigError: one is there twice.
    """
    roots = [Path(root) for root in ([data_root] if isinstance(data_root, str | Path) else data_root)]
    for root in roots:
        if not root.is_dir():
            action = "see data/README.md for where the data set goes, or set data_root"
            raise DataError(f"data_root {root} is no folder", expected, action)
    real = [os.path.realpath(root) for root in roots]
    twice = [root for root, place in zip(roots, real) if real.count(place) > 1]
    if twice:
        raise ConfigError(f"data_root {twice[0]} and {twice[1]} are one folder", "each folder once", "remove one")
    if len(roots) == 1:
        return {"": roots[0]}
    places = [os.path.abspath(root) for root in roots]
    above = os.path.commonpath(places)
    return {"" if place == above else f"{os.path.relpath(place, above)}/": root for place, root in zip(places, roots)}


def no_masks(names: Sequence[str], frames: PictureFolders, masks: PictureFolders) -> DataError:
    """The error for videos of a training none of which has a mask."""
    stem = next(iter(frames.of(names[0])))
    return DataError(
        f"no masks for the {len(names)} videos below {masks.root}, the first is {names[0]!r}",
        f"masks like {os.path.join(masks.folder(names[0]), stem)}{masks.suffix or masks.suffixes[0]}",
        "correct masks_dir, and give mask_suffix for masks that are no .png or have other names than their frames",
    )


def scan_video(
    name: str,
    frames: PictureFolders,
    masks: PictureFolders,
    keep_unlabelled: bool,
    masks_needed: bool,
    alone: list[str],
) -> VideoFiles:
    """List the frames of a video and pair them with their masks; two folder listings, no file is opened.

    Args:
        name: of the video.
        frames, masks: where they are.
        keep_unlabelled: frames may be without mask; then masks may not be without frame.
        masks_needed: whether a video without any mask is an error.
        alone: receives the masks without frame.

    Raises:
        DataError: a folder is missing or empty, two files have the same stem, or frames and masks are no pairs.
    """
    pictures, folder = frames.of(name), frames.folder(name)
    if pictures is None:
        raise DataError(
            f"video {name!r}: folder {folder} does not exist{_beside(folder)}"
            if frames.flat is None
            else f"video {name!r}: no frame of it in {folder}",
            "a folder with the frames of every video that the split file names",
            "extract the whole data set, or remove the line from the split file",
        )
    if not pictures:
        raise DataError(
            f"video {name!r}: no frames in {folder}",
            "pictures " + (frames.suffix or ", ".join(frames.suffixes)),
            "extract the video again",
        )
    labels = masks.of(name) or {}
    if not labels and not masks_needed:
        return VideoFiles.of(name, list(pictures.values()))
    alone += check_pairs(name, pictures, labels, masks, keep_unlabelled)
    return VideoFiles.of(name, list(pictures.values()), [labels.get(stem) for stem in pictures])


def check_pairs(
    name: str, frames: Mapping[str, str], labels: Mapping[str, str], masks: PictureFolders, keep_unlabelled: bool
) -> list[str]:
    """The masks without frame. Raises DataError for a frame without mask; or, where these are kept, for such a mask."""
    missing = [stem for stem in frames if stem not in labels]
    alone = [labels[stem] for stem in labels if stem not in frames]
    if missing and not keep_unlabelled:
        raise DataError(
            f"video {name!r}: {len(missing)} of {len(frames)} frames without mask, the first is "
            f"{os.path.join(masks.folder(name), missing[0])}{masks.suffix or '.png'}{_beside(masks.folder(name))}",
            "a mask with the same stem for every frame",
            "extract the masks again, or remove frames without mask from the folder of frames; where only some frames "
            "are labelled, set unlabelled='keep' in the data set",
        )
    if alone and keep_unlabelled:
        raise DataError(
            f"video {name!r}: {len(alone)} of {len(labels)} masks without frame, the first is {alone[0]}",
            "a frame with the same stem for every mask",
            "rename them, or set frame_suffix and mask_suffix to what their names end with",
        )
    return alone


def _beside(folder: str) -> str:
    """What stands where a folder is missing, for messages: it may have another name, or be in capitals."""
    above = os.path.dirname(folder)
    if os.path.lexists(folder) or not os.path.isdir(above):  # a link to nothing is there, under this name
        return ""
    try:
        names = sorted(name for name in os.listdir(above) if not name.startswith("."))
    except OSError:  # it may not be read
        return ""
    more = ", ..." if len(names) > _NAMED else ""
    return f" ({above} has no {os.path.basename(folder)}, but {', '.join(names[:_NAMED])}{more})" if names else ""
