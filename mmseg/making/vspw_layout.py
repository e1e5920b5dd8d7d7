"""Writing a data set in the VSPW layout: all of it or nothing."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg.datasets.class_names import CLASSES_FILE
from mmseg.datasets.vspw import video_name
from mmseg.errors import DataError
from mmseg.files import UNFINISHED, NewFile, read_json, sweep, writing

RECIPE_FILE = "recipe.json"  # how a folder was made; only folders that have one are ever replaced


class VSPWWriter:
    """Adds videos to a folder in the VSPW layout.

    Args:
        root: an existing folder.
        jpeg_quality: 0 to 100, of frames that are encoded here.
    """

    def __init__(self, root: Path, jpeg_quality: int = 95) -> None:
        self.root, self.jpeg_quality = root, jpeg_quality
        self.splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        self.counts = np.zeros(256, np.int64)  # pixels of each raw label in the masks so far

    def add_video(self, split: str, name: str) -> None:
        """Start a video and enter it in a split.

        Raises:
            DataError: there is a video of this name already, or it is no name for one.
        """
        if video_name(name) != name:
            raise DataError(f"a video named {name!r}", f"a name like {video_name(name)!r}", "rename it")
        folder = self.root / "data" / name
        if folder.exists():
            raise DataError(f"two videos named {name!r}", "different names", "rename one")
        (folder / "origin").mkdir(parents=True)
        (folder / "mask").mkdir()
        self.splits[split].append(name)

    def frame_path(self, video: str, stem: str, suffix: str = ".jpg") -> Path:
        """Where a frame goes."""
        return self.root / "data" / video / "origin" / f"{stem}{suffix}"

    def write_frame(self, video: str, stem: str, frame: np.ndarray) -> None:
        """Write a frame (H, W, 3) uint8 BGR as JPEG."""
        parameters = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
        self.frame_path(video, stem).write_bytes(cv2.imencode(".jpg", frame, parameters)[1].tobytes())

    def write_mask(self, video: str, stem: str, mask: np.ndarray) -> None:
        """Write raw labels (H, W) uint8: 0 and 255 are ignored, v is class v - 1."""
        self.counts += np.bincount(mask.ravel(), minlength=256)
        path = self.root / "data" / video / "mask" / f"{stem}.png"
        path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())

    def finish(self, classes: Sequence[str] | Mapping[str, Sequence[int]], recipe: Mapping[str, Any]) -> None:
        """Write the split files, ``classes.json`` (names, or names with their RGB colours) and the recipe."""
        for split, names in self.splits.items():
            (self.root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (self.root / CLASSES_FILE).write_text(
            json.dumps(dict(classes) if isinstance(classes, Mapping) else list(classes)) + "\n", encoding="utf-8"
        )
        (self.root / RECIPE_FILE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def read_recipe(root: Path) -> Any:
    """How the data set at `root` was made; None if nothing says so."""
    try:
        return read_json(root / RECIPE_FILE)
    except DataError:
        return None


@contextmanager
def new_folder(root: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside `root` to build in, which takes the place of `root` when the block ends without an error.

    Whatever happens, `root` is either as it was or complete. Several processes may build the same data set at once: the
    first one puts it in place, the others leave it.

    Args:
        root: must not exist, be empty, or - with `overwrite` - hold a data set that has a recipe.
        overwrite: replace such a data set.

    Raises:
        DataError: `root` is in the way.
        WriteError: it cannot be written.
    """
    root = Path(os.path.realpath(root))
    token = NewFile(root.with_name(f"{root.name}{_TOKEN}"))  # unfinished for as long as this process builds
    building, old = (Path(f"{token.temporary}{end}") for end in (_BUILDING, _OLD))
    try:
        with writing(root):
            _clear_up(root)
            _check_free(root, overwrite)
            building.mkdir()
            yield building
            _put_in_place(building, root, old, overwrite)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        token.discard()


_TOKEN, _BUILDING, _OLD = ".making", ".d", ".old"
_OTHERS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)  # another process has put its folder there, or moved it


def _check_free(root: Path, overwrite: bool) -> None:
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        if read_recipe(root) is None:
            raise DataError(f"{root} exists and is no data set made here", "a new or empty folder", "choose another")
        if not overwrite:
            raise DataError(f"{root} holds a data set already", "a new or empty folder", "choose another, or --force")


def _put_in_place(building: Path, root: Path, old: Path, overwrite: bool) -> None:
    while True:
        try:
            building.rename(root)  # succeeds if there is nothing, or an empty folder
            return
        except OSError as error:
            if error.errno not in _OTHERS:
                raise
        if not overwrite and read_recipe(root) == read_recipe(building):
            return  # another process was faster
        _check_free(root, overwrite)
        try:
            root.rename(old)
            building.rename(root)
            shutil.rmtree(old, ignore_errors=True)
            return
        except OSError as error:
            if error.errno not in _OTHERS:
                if old.exists() and not root.exists():
                    old.rename(root)
                raise
            shutil.rmtree(old, ignore_errors=True)


def _clear_up(root: Path) -> None:
    """Remove what dead processes left beside `root`; a data set that one had just moved aside is put back."""
    name = glob.escape(f"{root.name}{_TOKEN}")
    sweep(root.parent, name)
    for left in root.parent.glob(f".{name}.*{UNFINISHED}.*"):
        if left.suffix in (_BUILDING, _OLD) and not left.with_suffix("").exists():
            with suppress(OSError):
                if left.suffix == _OLD and not root.exists():
                    left.rename(root)
            shutil.rmtree(left, ignore_errors=True)
