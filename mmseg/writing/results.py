"""What a test run leaves on disk, written frame by frame while testing.

A writer sees every frame once, in order within a video; videos of a process come in data-set order. Nothing is
kept in memory beyond the frame, and a run that breaks off leaves no half-written result.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mmseg import distributed
from mmseg.distributed import receive_file, send_file
from mmseg.errors import ConfigError, DataError
from mmseg.structures import Result, Video


class ResultWriter:
    """Base of the writers; every method may be left as it is."""

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        """Called once in every process; `owners` is the rank that tests each video."""

    def begin_video(self, video: Video) -> None:
        """The next frames belong to this video."""

    def add(self, result: Result) -> None:
        """Write one frame."""

    def end_video(self) -> None:
        """The video is complete."""

    def finish(self) -> None:
        """All videos of all processes are complete; called in every process."""

    def abort(self) -> None:
        """The run broke off: remove what is incomplete."""


# A pickle is a program for a small stack machine. This one makes a list and appends maps, each of which is
# numpy.ndarray((height, width), 'uint8', bytearray); no memo, so that the programs of maps can be joined in any order.
_PICKLE_HEAD = b"\x80\x05]"  # protocol 5, empty list
_PICKLE_TAIL = b"."


def pickle_program(labels: np.ndarray) -> bytes:
    """The pickle opcodes that append an (H, W) uint8 map to the list on top of the stack."""
    height, width = labels.shape
    data = np.ascontiguousarray(labels, np.uint8).tobytes()
    return b"".join(
        [
            b"cnumpy\nndarray\n",
            b"J" + struct.pack("<i", height) + b"J" + struct.pack("<i", width) + b"\x86",  # 2-tuple
            b"\x8c\x05uint8",
            b"\x96" + struct.pack("<Q", len(data)) + data,  # bytearray
            b"\x87R",  # 3-tuple of arguments, call
            b"a",  # append
        ]
    )


class PickleWriter(ResultWriter):
    """``res.pkl``: the pickled list of all (H, W) uint8 label maps in data-set order.

    Plain ``pickle.load`` reads it (numpy is needed, this package is not). With several processes each video goes to
    a part file of its own, and the main process joins the parts.

    Args:
        path: the result file, ending in .pkl or .pickle.
        tmpdir: folder for the part files, seen by all processes (default: beside `path`).
        gather: send the parts to the main process instead, for machines that share no folder.

    Raises:
        ConfigError: another suffix.
        DataError: the file cannot be written.
    """

    def __init__(self, path: str | Path, tmpdir: str | Path | None = None, gather: bool = False) -> None:
        self.path = check_pickle_path(path)
        self.gather = gather
        beside = self.path.with_name(f".{self.path.name}.parts")
        self.parts = Path(tmpdir) / beside.name if tmpdir else beside
        if gather:
            self.parts = self.parts.with_name(f"{self.parts.name}.{distributed.rank()}")
        self._temporary = self.path.with_name(f".{self.path.name}.tmp")
        self._file: BinaryIO | None = None
        self._owners: Sequence[int] = ()

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        self._owners = owners
        if distributed.world_size() == 1:
            self._file = self._open_result()
            return
        if distributed.is_main() or self.gather:
            shutil.rmtree(self.parts, ignore_errors=True)
            make_folder(self.parts)
        distributed.barrier()

    def begin_video(self, video: Video) -> None:
        if distributed.world_size() > 1:
            try:
                self._file = self._part(video.index).open("wb")
            except OSError as error:
                raise _unwritable(self._part(video.index), error) from error

    def add(self, result: Result) -> None:
        try:
            self._file.write(pickle_program(result.labels))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def end_video(self) -> None:
        if distributed.world_size() > 1:
            self._file.close()

    def finish(self) -> None:
        distributed.barrier()
        if distributed.world_size() == 1:
            self._close_result(self._file)
            return
        if distributed.is_main():
            out = self._open_result()
            for index, owner in enumerate(self._owners):
                self._append_part(index, owner, out)
            self._close_result(out)
        elif self.gather:
            for index, owner in enumerate(self._owners):
                if owner == distributed.rank():
                    send_file(self._part(index))
        distributed.barrier()
        if distributed.is_main() or self.gather:
            shutil.rmtree(self.parts, ignore_errors=True)

    def abort(self) -> None:
        if self._file is not None:
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _part(self, index: int) -> Path:
        return self.parts / f"{index:06d}.part"

    def _append_part(self, index: int, owner: int, out: BinaryIO) -> None:
        """Copy the maps of one video to the end of the result, and free the space of the part."""
        if self.gather and owner != 0:
            receive_file(owner, out)
            return
        part = self._part(index)
        if not part.is_file():
            raise DataError(
                f"part file {part} of process {owner} is missing",
                "a folder that all processes see",
                "give a shared folder with --tmpdir, or use --gpu-collect",
            )
        with part.open("rb") as file:
            shutil.copyfileobj(file, out, 2**20)
        part.unlink()

    def _open_result(self) -> BinaryIO:
        make_folder(self.path.parent)
        try:
            file = self._temporary.open("wb")
            file.write(_PICKLE_HEAD)
        except OSError as error:
            raise _unwritable(self._temporary, error) from error
        return file

    def _close_result(self, file: BinaryIO) -> None:
        try:
            file.write(_PICKLE_TAIL)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error


class PngWriter(ResultWriter):
    """Label maps as 8-bit palette PNGs, ``<folder>/<video>/<frame stem>.png``; pixel = network label, 0..K-1.

    Args:
        folder: where the video folders go.
        table: (256, 3) uint8 RGB palette.
    """

    def __init__(self, folder: str | Path, table: np.ndarray) -> None:
        self.folder = Path(folder)
        self._palette = np.asarray(table, np.uint8).tobytes()

    def begin_video(self, video: Video) -> None:
        make_folder(self.folder / video.name)

    def add(self, result: Result) -> None:
        path = self.folder / result.video.name / f"{result.frame.name}.png"
        write_label_png(path, result.labels, self._palette)


def write_label_png(path: Path, labels: np.ndarray, palette: bytes) -> None:
    """Write an (H, W) uint8 map as a PNG of mode P with a palette of 768 bytes. Raises DataError if that fails."""
    image = Image.fromarray(labels)
    image.putpalette(palette)
    # Encoded in memory first: a full disk or a kill is unlikely to leave half a picture.
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    try:
        path.write_bytes(encoded.getvalue())
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, the whole file or nothing. Raises DataError if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def check_pickle_path(path: str | Path) -> Path:
    """`path` as a Path. Raises ConfigError unless it ends in .pkl or .pickle."""
    path = Path(path)
    if path.suffix not in (".pkl", ".pickle"):
        raise ConfigError(
            f"--out {path}", "a file name that ends in .pkl or .pickle", f"use {path.with_suffix('.pkl')}"
        )
    return path


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises DataError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error.strerror or error}", "a writable place with space left", "free some")
