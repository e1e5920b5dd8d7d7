"""From a ``JPEGImages`` / ``Annotations`` tree (DAVIS, YouTube-VOS and many others) to the VSPW layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.errors import ConfigError, DataError, nearest
from mmseg.images import check_same_size, list_pictures, natural_key, read_frame, read_mask
from mmseg.making.mask_values import ClassMap
from mmseg.making.vspw_layout import VSPWWriter, new_folder

LATE = "_late"  # suffix of the video made of the last part of another one


@dataclass(frozen=True)
class ConvertOptions:
    """What goes where, and how.

    `val` and `test` name the sequences of these splits; all others are for training. `hold_out_time` is the share of
    frames at the end of each training sequence that becomes a val video ``<name>_late``. Frames are put in place by
    `frames` ('symlink' or 'copy') unless they are resized: to `size` (height, width), or until the longer side is
    `max_side`. `unlabelled` frames are an 'error' or left out ('drop').
    """

    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    hold_out_time: float = 0.0
    frames: str = "symlink"
    size: tuple[int, int] | None = None
    max_side: int | None = None
    unlabelled: str = "error"

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out_time < 1:
            raise ConfigError(f"hold_out_time={self.hold_out_time}", "a share from 0 to below 1", "fix it")
        if self.frames not in ("symlink", "copy") or self.unlabelled not in ("error", "drop"):
            raise ConfigError(
                f"frames={self.frames!r}, unlabelled={self.unlabelled!r}", "symlink | copy, error | drop", "fix it"
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
    """A sequence of the source: (frame, mask) paths in order."""

    name: str
    pairs: tuple[tuple[Path, Path], ...]


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
        source: holds ``JPEGImages[/480p]/<sequence>/*.jpg`` and ``Annotations[/480p]/<sequence>/*.png``.
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
    found = [find_sequence(Path(source), name, options.unlabelled) for name in _names(Path(source), sequences)]
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
            for frame, mask in video.pairs:
                _write_pair(writer, video.name, frame, mask, origin, class_map, options)
            if progress is not None:
                progress(video.name, number, len(videos))
        writer.finish(class_map.classes, _recipe(source, class_map, options))
    summary: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
    for split, video, _ in videos:
        summary[split].append((video.name, len(video.pairs)))
    return summary


def find_sequence(source: Path, name: str, unlabelled: str = "error") -> SourceSequence:
    """The frames of a sequence with their masks. Raises DataError if there are none, or a frame has no mask."""
    folder, masks = _part(source, "JPEGImages") / name, _part(source, "Annotations") / name
    if not folder.is_dir():
        known = _list_folders(_part(source, "JPEGImages"))
        raise DataError(f"no sequence folder {folder}", "an existing sequence", nearest(name, known))
    masks_by_stem = {Path(name).stem: name for name in list_pictures(masks, (".png",)) or ()}
    frames = [folder / name for name in list_pictures(folder) or ()]
    pairs = [(frame, masks / masks_by_stem.get(frame.stem, f"{frame.stem}.png")) for frame in frames]
    labelled = [pair for pair in pairs if pair[1].is_file()]
    if not labelled:
        raise DataError(f"{folder}: no frame with a mask in {masks}", "frames and masks of one stem", "check the tree")
    if len(labelled) < len(pairs) and unlabelled == "error":
        missing = next(mask for _, mask in pairs if not mask.is_file())
        raise DataError(
            f"{len(pairs) - len(labelled)} of {len(pairs)} frames in {folder} have no mask, the first is {missing}",
            "a mask for every frame",
            "complete the masks, or leave such frames out (--unlabelled drop)",
        )
    return SourceSequence(name, tuple(labelled))


def _names(source: Path, sequences: Sequence[str] | None) -> list[str]:
    names = list(sequences) if sequences is not None else _list_folders(_part(source, "JPEGImages"))
    if not names:
        raise DataError(f"no sequences in {source}", "JPEGImages/<sequence>/*.jpg", "check the path")
    return names


def _list_folders(folder: Path) -> list[str]:
    return sorted((f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")), key=natural_key)


def _part(source: Path, part: str) -> Path:
    """``source/part``, or the one resolution folder in it, as DAVIS has them (480p before others)."""
    folder = source / part
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", "JPEGImages and Annotations side by side", "check the path")
    for resolution in ("480p", "Full-Resolution", "1080p"):
        if (folder / resolution).is_dir():
            return folder / resolution
    return folder


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
    frame_path: Path,
    mask_path: Path,
    sequence: str,
    class_map: ClassMap,
    options: ConvertOptions,
) -> None:
    """Put one frame and its mask in place."""
    frame, mask = read_frame(frame_path), read_mask(mask_path)
    check_same_size(frame, mask, mask_path)
    labels = class_map.convert(mask, sequence, mask_path)
    height, width = options.target_size(*mask.shape)
    if (height, width) != mask.shape:
        shrinking = height < mask.shape[0]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        writer.write_frame(video, frame_path.stem, frame)
    else:
        place = writer.frame_path(video, frame_path.stem, frame_path.suffix)
        if options.frames == "copy":
            shutil.copyfile(frame_path, place)
        else:
            os.symlink(frame_path.resolve(), place)
    writer.write_mask(video, frame_path.stem, np.ascontiguousarray(labels))


def _recipe(source: str | Path, class_map: ClassMap, options: ConvertOptions) -> dict[str, Any]:
    return dict(
        made_by="convert_to_vspw",
        source=str(source),
        class_map=class_map.entries,
        background=class_map.background,
        **asdict(options),
    )
