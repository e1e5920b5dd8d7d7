"""From a tree of frames and masks (DAVIS, YouTube-VOS and many others) to the VSPW layout."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.datasets.video_layout import FLAT_NAMES, PictureFolders, check_pairs
from mmseg.errors import ConfigError, DataError, nearest
from mmseg.images import FRAMES, LABEL_MAPS, check_same_size, read_frame
from mmseg.making.mask_values import ClassMap
from mmseg.making.vspw_layout import VSPWWriter, new_folder

logger = logging.getLogger("mmseg.making")

LATE = "_late"  # suffix of the video made of the last part of another one


@dataclass(frozen=True)
class ConvertOptions:
    """What goes where, and how.

    `val` and `test` name the sequences of these splits; all others are for training. `hold_out_time` is the share of
    frames at the end of each training sequence that becomes a val video ``<name>_late``. Frames are put in place by
    `frames` ('symlink' or 'copy') unless they are resized: to `size` (height, width), or until the longer side is
    `max_side`. `unlabelled` frames are an 'error', left out ('drop'), or stay ('keep'); then sequences of `test` may
    be without masks. The other arguments say where frames and masks are, see :class:`PictureFolders`; without
    folders that is ``JPEGImages`` and ``Annotations``, or a folder of one resolution in these.
    """

    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    hold_out_time: float = 0.0
    frames: str = "symlink"
    size: tuple[int, int] | None = None
    max_side: int | None = None
    unlabelled: str = "error"
    frames_dir: str | None = None
    masks_dir: str | None = None
    frame_suffix: str | None = None
    mask_suffix: str | None = None
    video_pattern: str = FLAT_NAMES

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out_time < 1:
            raise ConfigError(f"hold_out_time={self.hold_out_time}", "a share from 0 to below 1", "fix it")
        if self.frames not in ("symlink", "copy") or self.unlabelled not in ("error", "drop", "keep"):
            raise ConfigError(
                f"frames={self.frames!r}, unlabelled={self.unlabelled!r}",
                "symlink | copy, error | drop | keep",
                "fix it",
            )
        if self.size is not None and self.max_side is not None:
            raise ConfigError("size and max_side", "one of them", "drop one")
        if min(*(self.size or (1, 1)), 1 if self.max_side is None else self.max_side) < 1:
            raise ConfigError(f"size={self.size}, max_side={self.max_side}", "sizes above 0", "fix it")

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a frame is resized to."""
        if self.size is not None:
            return self.size
        if self.max_side is None or max(height, width) <= self.max_side:
            return height, width
        factor = self.max_side / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True)
class SourceSequence:
    """A sequence of the source: (stem, frame, mask) in order; the mask may be None."""

    name: str
    pairs: tuple[tuple[str, Path, Path | None], ...]


def convert_to_vspw(
    source: str | Path,
    root: str | Path,
    class_map: ClassMap,
    options: ConvertOptions | None = None,
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, list[tuple[str, int]]]:
    """Write a data set in the VSPW layout; `root` appears when it is complete.

    Args:
        source: holds ``JPEGImages[/480p]/<sequence>/*.jpg`` and ``Annotations[/480p]/<sequence>/*.png``, or what
            `options` say.
        root: folder to make.
        class_map: classes of the mask values.
        options: splits, sizes and the like.
        sequences: the sequences to take; None takes all.
        overwrite: replace a data set that was made here.
        progress: called with the name of each video, its number counted from 1 and the number of videos.

    Returns:
        (video name, number of frames) of each split.

    Raises:
        ConfigError: names that do not exist, or sequences without class.
        DataError: files that are missing or damaged, or a `root` that is in the way.
    """
    options = options or ConvertOptions()
    frames, masks = source_folders(Path(source), options)
    bare = options.test if options.unlabelled == "keep" else ()
    found = [
        find_sequence(frames, masks, name, options.unlabelled, name not in bare)
        for name in sequences or frames.videos()
    ]
    names = [sequence.name for sequence in found]
    class_map.check_sequences(names)
    for name in (*options.val, *options.test):
        if name not in names:
            raise ConfigError(f"no sequence {name!r}", "existing sequences", nearest(name, names))
    videos = [video for sequence in found for video in _split(sequence, options)]
    with new_folder(Path(root), overwrite) as building:
        writer = VSPWWriter(building)
        for number, (split, video, origin) in enumerate(videos, start=1):
            writer.add_video(split, video.name)
            for stem, frame, mask in video.pairs:
                _write_pair(writer, video.name, stem, frame, mask, origin, class_map, options)
            if progress is not None:
                progress(video.name, number, len(videos))
        writer.finish(class_map.colours or class_map.classes, _recipe(source, class_map, options))
    unseen = [name for label, name in enumerate(class_map.classes, start=1) if not writer.counts[label]]
    if unseen:
        logger.warning(
            "no pixel of %s: is it the class of a value that the masks do not have? 255 is ignored unless it has a "
            "class of its own (255=CLASS), or its sequence is of one class",
            ", ".join(unseen),
        )
    summary: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
    for split, video, _ in videos:
        summary[split].append((video.name, len(video.pairs)))
    return summary


def source_folders(source: Path, options: ConvertOptions) -> tuple[PictureFolders, PictureFolders]:
    """Where the frames and the masks of a source are. Raises SegError if there are no such folders or names."""
    suffixes, pattern = (options.frame_suffix, options.mask_suffix), options.video_pattern
    frames_dir = options.frames_dir or _part(source, "JPEGImages")
    masks_dir = options.masks_dir or _part(source, "Annotations")
    endings = (".png",) if options.mask_suffix is None else LABEL_MAPS
    return (
        PictureFolders(source, frames_dir, FRAMES, *suffixes, pattern),
        PictureFolders(source, masks_dir, endings, *reversed(suffixes), pattern),
    )


def find_sequence(
    frames: PictureFolders, masks: PictureFolders, name: str, unlabelled: str = "error", needs_masks: bool = True
) -> SourceSequence:
    """The frames of a sequence with their masks. Raises DataError if there are none, or a frame has no mask."""
    found, folder = frames.of(name), frames.folder(name)
    if found is None:
        raise DataError(f"no sequence folder {folder}", "an existing sequence", nearest(name, frames.videos()))
    labels = masks.of(name) or {}
    pairs = [(stem, Path(path), Path(labels[stem]) if stem in labels else None) for stem, path in found.items()]
    labelled = [pair for pair in pairs if pair[2] is not None]
    if not pairs or (not labelled and needs_masks):
        raise DataError(
            f"{folder}: no frame with a mask in {masks.folder(name)}",
            f"masks like {masks.folder(name)}/{next(iter(found), '<frame>')}{masks.suffix or masks.suffixes[0]}",
            "correct --masks-dir and --mask-suffix, leave the sequence out by --sequences, or name it in --test, where "
            "sequences may be without masks if --unlabelled keep is given",
        )
    if len(labelled) < len(pairs) and unlabelled == "error":
        missing = next(stem for stem, _, mask in pairs if mask is None)
        raise DataError(
            f"{len(pairs) - len(labelled)} of {len(pairs)} frames in {folder} have no mask, the first is "
            f"{masks.folder(name)}/{missing}{masks.suffix or '.png'}",
            "a mask for every frame",
            "complete the masks, leave such frames out (--unlabelled drop), or keep them between the labelled ones "
            "(--unlabelled keep)",
        )
    if unlabelled == "keep":
        check_pairs(name, found, labels, masks, keep_unlabelled=True)
    return SourceSequence(name, tuple(pairs if unlabelled == "keep" else labelled))


def _part(source: Path, part: str) -> str:
    """``part``, or the one resolution folder in it, as DAVIS has them (480p before others)."""
    if not (source / part).is_dir():
        raise DataError(
            f"{source / part} is no folder",
            "JPEGImages and Annotations side by side",
            "check the path, or give --frames-dir and --masks-dir",
        )
    resolutions = ("480p", "Full-Resolution", "1080p")
    return next((f"{part}/{name}" for name in resolutions if (source / part / name).is_dir()), part)


def _split(sequence: SourceSequence, options: ConvertOptions) -> list[tuple[str, SourceSequence, str]]:
    """(split, video, name of the source sequence) of the videos that a sequence becomes."""
    name, pairs = sequence.name, sequence.pairs
    for split in ("val", "test"):
        if name in getattr(options, split):
            return [(split, sequence, name)]
    late = round(len(pairs) * options.hold_out_time)
    if late == 0:
        return [("train", sequence, name)]
    early = SourceSequence(name, pairs[:-late])
    return [("train", early, name), ("val", SourceSequence(name + LATE, pairs[-late:]), name)]


def _write_pair(
    writer: VSPWWriter,
    video: str,
    stem: str,
    frame_path: Path,
    mask_path: Path | None,
    sequence: str,
    class_map: ClassMap,
    options: ConvertOptions,
) -> None:
    """Put one frame and its mask in place."""
    frame, labels = read_frame(frame_path), None
    height, width = size = options.target_size(*frame.shape[:2])
    if mask_path is not None:
        labels = class_map.read(mask_path, sequence)
        check_same_size(frame, labels, mask_path)
        if labels.shape != size:
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        writer.write_mask(video, stem, np.ascontiguousarray(labels))
    if frame.shape[:2] != size:
        shrinking = height < frame.shape[0]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        writer.write_frame(video, stem, frame)
        return
    place = writer.frame_path(video, stem, frame_path.suffix)
    if options.frames == "copy":
        shutil.copyfile(frame_path, place)
    else:
        os.symlink(frame_path.resolve(), place)


def _recipe(source: str | Path, class_map: ClassMap, options: ConvertOptions) -> dict[str, Any]:
    return dict(
        made_by="convert_to_vspw",
        source=str(source),
        class_map=class_map.entries,
        background=class_map.background,
        **asdict(options),
    )
