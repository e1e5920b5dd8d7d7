"""Reads predictions that a test run stored: a folder of label PNGs, or a pickled list of label maps."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmseg.errors import DataError
from mmseg.images import read_mask

NAMED_AT_MOST = 5
"""How many missing files an error message names."""


class PredictionFolder:
    """``<folder>/<video>/<frame stem>.png``, as ``tools/test.py --format-only`` writes and the VSPW server takes.

    Args:
        folder: where the folders of the videos are.
        frames: video name -> stems of its frames, oldest first.

    Raises:
        DataError: the folder or frames in it are missing; the first few are named.
    """

    def __init__(self, folder: str | Path, frames: Mapping[str, Sequence[str]]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}: no such folder", "a folder with one folder of PNGs per video", "check the path"
            )
        missing = [path for video, stems in frames.items() for path in self._missing(video, stems)]
        if missing:
            raise DataError(
                f"{self.folder}: {len(missing)} of {sum(map(len, frames.values()))} predictions are missing: "
                + ", ".join(missing[:NAMED_AT_MOST])
                + (", ..." if len(missing) > NAMED_AT_MOST else ""),
                "one PNG for every frame of the split",
                "predict them, or evaluate with a split file that leaves these videos out",
            )

    def _missing(self, video: str, stems: Sequence[str]) -> list[str]:
        folder = self.folder / video
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return [f"{video}/{stem}.png" for stem in stems if f"{stem}.png" not in found]

    def read(self, video: str, stem: str) -> np.ndarray:
        """The prediction of one frame as stored, (H, W) uint8. Raises DataError for a damaged or colour PNG."""
        return read_mask(self.folder / video / f"{stem}.png")


def read_result_pickle(path: str | Path) -> Iterator[np.ndarray]:
    """The label maps of a ``res.pkl`` in their order, each (H, W).

    A file of ours is read map by map, so that a large one needs no more memory than a small one. Any other list of
    arrays is loaded whole, with NumPy arrays as the only thing that it may contain.

    Raises:
        DataError: missing, truncated, not a list of arrays, or carrying code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if _is_stream(file):
                yield from _stream(file)
            else:
                yield from _load(file, path)
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: cannot be read ({error})", "a complete pickled list of label maps", "test again"
        ) from error


def _is_stream(file: BinaryIO) -> bool:
    """Whether `file`, at its start, is a list to which ``numpy.ndarray(size, 'uint8', bytes)`` is appended."""
    start = [(op.name, arg) for op, arg, _ in islice(pickletools.genops(file), 3)]
    file.seek(0)
    return start[1:] == [("EMPTY_LIST", None), ("GLOBAL", "numpy ndarray")]


def _stream(file: BinaryIO) -> Iterator[np.ndarray]:
    size: list[int] = []
    data = b""
    for op, arg, _ in pickletools.genops(file):
        if op.name == "BININT":
            size.append(arg)
        elif op.name == "BYTEARRAY8":
            data = arg
        elif op.name == "APPEND":
            yield np.frombuffer(data, dtype=np.uint8).reshape(size)
            size = []


def _load(file: BinaryIO, path: Path) -> list[np.ndarray]:
    content = _ArrayUnpickler(file).load()
    if not isinstance(content, list) or not all(isinstance(entry, np.ndarray) for entry in content):
        raise DataError(
            f"{path}: {_kind(content)}",
            "a list of label maps, one array (H, W) for each frame of the split",
            "the official code stores names of temporary files, which are useless; store label maps or PNGs",
        )
    return content


def _kind(content: Any) -> str:
    if isinstance(content, list) and content:
        return f"a list that holds {next(type(e).__name__ for e in content if not isinstance(e, np.ndarray))}"
    return f"holds {type(content).__name__}"


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays and plain Python values; a file that asks for more is not trusted."""

    ALLOWED = ("ndarray", "dtype", "_reconstruct", "_frombuffer")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no label map needs")


def read_flow(path: str | Path) -> np.ndarray:
    """Optical flow of one frame from a ``.npy`` file, as stored: (2, H, W) or (H, W, 2) float.

    Raises:
        DataError: missing or damaged.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read ({error})", "an array (2, H, W) saved with numpy.save", "compute the flow again"
        ) from error
