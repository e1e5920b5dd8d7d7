"""A video and its stored label maps as pictures: a sheet of frames over time, and which pixels flicker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmseg.datasets.mask_inputs import numbers_of
from mmseg.datasets.sources import FrameSource, Source
from mmseg.errors import ConfigError, DataError
from mmseg.images import LABEL_MAPS, list_pictures, read_mask, read_palette
from mmseg.structures import Frame
from mmseg.visualization import palette_table
from mmseg.visualization.film_sheet import Shot, film_sheet
from mmseg.visualization.flicker import Flicker, Motion, flicker_sheet
from mmseg.visualization.palette import IGNORE_INDEX

logger = logging.getLogger("mmseg.apis")

TRUTH = "truth"

_Key = str | int  # of a frame: its name or its number


@dataclass
class ShownVideo:
    """Pictures of a video.

    Attributes:
        name: of the video.
        sheet: (H, W, 3) uint8 BGR: frames over time under their labels.
        flicker: (H, W, 3) uint8 BGR heat maps; None if fewer than two frames have labels.
        shares: title -> which part of the pixels flickers (:attr:`Flicker.share`); empty if `flicker` is None.
        num_frames: frames with labels.
    """

    name: str
    sheet: np.ndarray
    flicker: np.ndarray | None
    shares: dict[str, float]
    num_frames: int


def show_video(
    video: Source,
    folders: Mapping[str, str | Path],
    truth: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    reduce_zero_label: bool = False,
    number: int = 12,
    columns: int = 4,
    width: int = 320,
) -> ShownVideo:
    """Draw frames over time and a picture of temporal consistency.

    The frames that have labels in all of `folders` are looked at; a frame's map is found by its name, or by the number
    at its end (``12.png`` and ``frame_00012.png`` for ``00012.jpg``, or for the frame with that number of a video
    file). Colours are those of the palette of the first map, else separated ones. Grey masks of 0 and 255 alone are
    masks of one object.

    Args:
        video: see :class:`FrameSource`.
        folders: title -> folder of label maps of this video, by the methods that are to be compared.
        truth: folder of masks, of some of the frames at least; shown in the sheet.
        class_names: names in label order; None: labels are numbers of objects, or classes of unknown names.
        reduce_zero_label: in `truth` 0 is void and v means class v - 1, as in VSPW.
        number: of frames in the sheet, spread over the video; those with a truth are preferred.
        columns: of the sheet.
        width: of a frame in the sheet.

    Raises:
        DataError: no labels, none for these frames, or of another size.
        ConfigError: two meanings of one title.
    """
    if truth is not None and TRUTH in folders:
        raise ConfigError(f"labels titled {TRUTH!r} beside a truth", "another title", "write title=FOLDER")
    stores = {title: _Masks(folder, class_names is None) for title, folder in folders.items()}
    answers = None if truth is None else _Masks(truth, class_names is None, reduce_zero_label)
    key = _key_of_frame([*stores.values(), *([] if answers is None else [answers])])
    source, motion = FrameSource(video), Motion()
    common = set.intersection(*(set(store.paths) for store in stores.values()))
    chosen = _chosen(next(iter(stores.values())).paths, common, answers, number)
    flickers, shots, count = {title: Flicker() for title in stores}, [], 0
    for frame in source:
        which = key(frame.name)
        if which not in common:
            continue
        maps = {title: store.read(which, frame) for title, store in stores.items()}
        step = motion.step(frame.image)
        for title, labels in maps.items():
            flickers[title].add(step, labels)
        if which in chosen:
            if answers is not None:
                maps[TRUTH] = answers.read(which, frame) if which in answers.paths else None
            shots.append(Shot(_title(frame, source), frame.image, maps).shrunk(width))
        count += 1
    first = next(iter(stores.values()))
    if count < len(common) or not shots:
        _tell_of_others(count, len(common), source, first)
    table = first.table(class_names)
    sheet = film_sheet(shots, table, class_names or first.names(table), columns, width)
    if count < 2:
        return ShownVideo(source.name, sheet, None, {}, count)
    shares = {title: flicker.share for title, flicker in flickers.items()}
    return ShownVideo(source.name, sheet, flicker_sheet(motion.first, flickers), shares, count)


class _Masks:
    """The label maps of a folder, by the names of their frames."""

    def __init__(self, folder: str | Path, objects: bool, reduce_zero_label: bool = False) -> None:
        self.folder, self.objects, self.reduce_zero_label = Path(folder), objects, reduce_zero_label
        names = list_pictures(folder, LABEL_MAPS)
        if not names:
            what = "no such folder" if names is None else "no label maps in it"
            raise DataError(f"{folder}: {what}", "a folder of PNGs of label values, one for a frame", "check the path")
        self.paths: dict[_Key, Path] = {Path(name).stem: self.folder / name for name in names}  # in the order of time

    def read(self, key: _Key, frame: Frame) -> np.ndarray:
        """(H, W) uint8. Raises DataError if it is not of the frame's size."""
        path = self.paths[key]
        labels = read_mask(path)
        if labels.shape != frame.image.shape[:2]:
            sizes = [f"{width}x{height}" for height, width in (labels.shape, frame.image.shape[:2])]
            raise DataError(f"{path}: a map of {sizes[0]}", f"{sizes[1]} as its frame", "give the maps of this video")
        if self.reduce_zero_label:
            return np.where(labels == IGNORE_INDEX, labels, labels - np.uint8(1))  # 0 becomes 255
        if self.objects and not ((labels != 0) & (labels != IGNORE_INDEX)).any() and read_palette(path) is None:
            return (labels == IGNORE_INDEX).astype(np.uint8)
        return labels

    def table(self, class_names: Sequence[str] | None) -> np.ndarray:
        """(256, 3) RGB: of the palette of the first map, else separated ones."""
        palette = read_palette(next(iter(self.paths.values())))
        if palette is None:
            return palette_table(None, None if class_names is None else len(class_names))
        palette[IGNORE_INDEX] = 0
        return palette

    def names(self, table: np.ndarray) -> list[str] | None:
        """What labels without names are called: numbers of objects, or of classes if label 0 has a colour."""
        return [f"class {label}" for label in range(IGNORE_INDEX)] if table[0].any() else None


def _key_of_frame(stores: Sequence[_Masks]) -> Callable[[str], _Key]:
    """By which key a frame of some name has its maps: by its number if all stores have numbers, else by the name."""
    numbers = [numbers_of(store.paths) for store in stores]
    if not all(numbers):
        return str
    of_stem = {stem: number for number, stem in numbers[0].items()}
    for store, found in zip(stores, numbers):
        store.paths = {number: store.paths[stem] for number, stem in found.items()}
    return lambda name: int(name) if name.isdecimal() else of_stem.get(name, name)


def _chosen(order: Mapping[_Key, Path], common: set[_Key], answers: _Masks | None, number: int) -> set[_Key]:
    """Keys of the frames in the sheet, spread over those with labels (and with a truth, if enough have one)."""
    names = [name for name in order if name in common]
    known = [name for name in names if answers is not None and name in answers.paths]
    names = known or names
    count = min(number, len(names))
    return {names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)}


def _title(frame: Frame, source: FrameSource) -> str:
    return frame.name if source.fps is None else f"{frame.number / float(source.fps):.1f} s  {frame.name}"


def _tell_of_others(count: int, maps: int, source: FrameSource, store: _Masks) -> None:
    """Raise DataError if no frame has labels; warn if some labels have no frame."""
    if count == 0:
        example = next(iter(store.paths.values())).stem
        raise DataError(
            f"{store.folder}: no label map belongs to a frame of {source.place} (maps are called {example} and the "
            "like)",
            "maps with the names of the frames" + ("" if maps else ", of the same frames in all folders"),
            "give the labels of this video",
        )
    logger.warning("%s: %d label maps belong to no frame of %s", store.folder, maps - count, source.place)
