"""``res.pkl``: the label maps of a whole data set as one pickled list, written and read map by map.

A pickle is a program for a small stack machine. The writer's makes a list and appends to it, for each frame, None or
``numpy.ndarray((height, width), 'uint8', bytearray)``; it has no memo, so that the programs of videos can be joined in
any order. Plain ``pickle.load`` reads it (NumPy is needed, this package is not).
"""

from __future__ import annotations

import glob
import json
import logging
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmseg import distributed
from mmseg.distributed import receive_file, send_file
from mmseg.errors import DataError, SegError, WriteError
from mmseg.files import NewFile, sweep, writing
from mmseg.locks import exclusive
from mmseg.plain_pickle import load_plain
from mmseg.structures import Result, Video
from mmseg.writing.base import ResultWriter, check_pickle_path
from mmseg.writing.parts import PartFolder

logger = logging.getLogger("mmseg.writing")

_HEAD = b"\x80\x05]"  # protocol 5, empty list
_TAIL = b"."
_NONE = b"Na"  # None, append
_MAP = struct.Struct("<15scici9sQ")  # global, two integers, 2-tuple and short text, bytearray of a length
_GLOBAL, _INTEGER, _TEXT = b"cnumpy\nndarray\n", b"J", b"\x86\x8c\x05uint8\x96"
_MAP_TAIL = b"\x87Ra"  # 3-tuple of arguments, call, append
_ADVICE = "--out says where the result goes, 'None' writes none"


def pickle_program(labels: np.ndarray | None) -> bytes:
    """The pickle opcodes that append an (H, W) uint8 map, or None, to the list on top of the stack."""
    if labels is None:
        return _NONE
    height, width = labels.shape
    data = np.ascontiguousarray(labels, np.uint8).tobytes()
    return b"".join([_MAP.pack(_GLOBAL, _INTEGER, height, _INTEGER, width, _TEXT, len(data)), data, _MAP_TAIL])


class LabelPickleWriter(ResultWriter):
    """``res.pkl``, a list with an entry for each frame in data-set order: an (H, W) uint8 map, or None without result.

    With several processes each video goes to a part file of its own, and the main process joins the parts.

    Args:
        path: the result file, ending in .pkl or .pickle.
        tmpdir: folder for the part files, seen by all processes (default: beside `path`).
        gather: send the parts to the main process instead, for machines that share no folder.
        report: makes the content of the JSON file that appears beside it in the same moment. None: there is none, and
            an old one, which is about another ``res.pkl``, is removed.

    Raises:
        ConfigError: another suffix.
        WriteError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        tmpdir: str | Path | None = None,
        gather: bool = False,
        report: Callable[[], Any] | None = None,
    ) -> None:
        self.path, self.gather, self.report = check_pickle_path(path), gather, report
        self.json = self.path.with_suffix(".json")
        advice = "--tmpdir says where the parts of the result go" if tmpdir else _ADVICE
        beside = Path(tmpdir) / self.path.name if tmpdir else self.path
        self._parts = PartFolder(beside, private=gather, advice=advice)
        self._result: NewFile | None = None  # in the main process
        self._json: NewFile | None = None
        self._out: Any = None  # what the maps of the current video go to
        self._owners: Sequence[int] = ()
        self._video: Video | None = None
        self._next = 0  # frame of the current video

    def start(self, videos: Sequence[Video], owners: Sequence[int]) -> None:
        self._owners = owners
        with distributed.together():
            if distributed.is_main():
                self._open_result()
        if distributed.world_size() > 1:
            self._parts.make()

    def begin_video(self, video: Video) -> None:
        self._video, self._next, self._out = video, 0, self._result
        if distributed.world_size() > 1:
            with writing(self._part(video.index), _ADVICE):
                self._out = self._part(video.index).open("xb", buffering=0)

    def add(self, result: Result) -> None:
        self._skip_to(result.frame.number)
        self._write(pickle_program(result.labels))
        self._next += 1

    def end_video(self) -> None:
        if self._video.num_frames is not None:
            self._skip_to(self._video.num_frames)
        if distributed.world_size() > 1:
            self._out.close()

    def finish(self) -> None:
        distributed.barrier()  # all parts are complete
        distributed.agree(self._join())
        with distributed.together():
            if distributed.is_main():
                self._publish()
        self._parts.remove()

    def abort(self) -> None:
        if self._out is not None and self._out is not self._result:
            with suppress(OSError):
                self._out.close()
        for file in (self._result, self._json):
            if file is not None:
                file.discard()
        self._parts.remove()

    def _open_result(self) -> None:
        sweep(self.path.parent, glob.escape(self.path.stem) + ".*")
        self._parts.sweep()
        self._result = NewFile(self.path, _ADVICE)
        self._result.write(_HEAD)
        if self.report is not None:
            self._json = NewFile(self.json, _ADVICE)  # now, so that a bad place is known before hours are spent

    def _skip_to(self, frame: int) -> None:
        """None for the frames before `frame` that have no result."""
        if frame < self._next:
            raise RuntimeError(f"a result of frame {frame} after that of frame {self._next - 1}")
        self._write(_NONE * (frame - self._next))
        self._next = frame

    def _write(self, program: bytes) -> None:
        if self._out is self._result:
            self._out.write(program)
        else:
            with writing(self._part(self._video.index), self._parts.advice):
                rest = memoryview(program)
                while rest:  # the system may take a part at a time
                    rest = rest[self._out.write(rest) :]

    def _part(self, index: int) -> Path:
        return self._parts.path / f"{index:06d}.part"

    def _join(self) -> SegError | None:
        """Bring the maps of all videos together in the main process; returns why that failed.

        Whatever fails, all that other processes send is received, so that none waits for ever.
        """
        failure, out = None, _Lenient(self._result)
        for index, owner in enumerate(self._owners if distributed.world_size() > 1 else ()):
            if self.gather and owner != 0:
                if distributed.is_main():
                    receive_file(owner, out)
                elif owner == distributed.rank():
                    send_file(self._part(index))
            elif distributed.is_main() and failure is None:
                try:
                    self._append_part(index, owner, out)
                except DataError as error:
                    failure = error
        return failure

    def _append_part(self, index: int, owner: int, out: _Lenient) -> None:
        """Copy the maps of one video to the end of the result, and free the space of the part."""
        part = self._part(index)
        try:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 2**20)
            part.unlink()
        except OSError as error:
            raise DataError(
                f"part file {part} of process {owner}: {error.strerror or error}",
                "a folder that all processes see",
                "give a shared folder with --tmpdir, or use --gpu-collect",
            ) from error

    def _publish(self) -> None:
        self._result.write(_TAIL)
        if self._json is not None:
            self._json.write((json.dumps(self.report(), indent=2) + "\n").encode())
        with exclusive(self.path.parent):
            self._result.commit()
            if self._json is not None:
                self._json.commit()
            elif self.json.is_file():
                logger.info("removing %s, which is about an earlier %s", self.json, self.path.name)
                with writing(self.json, _ADVICE):
                    self.json.unlink()


class _Lenient:
    """Takes also what a failed file cannot, which raises the error when it is committed."""

    def __init__(self, file: NewFile | None) -> None:
        self.file = file

    def write(self, data: Any) -> None:
        with suppress(WriteError):
            self.file.write(data)


def read_label_pickle(path: str | Path) -> Iterator[np.ndarray | None]:
    """The entries of a ``res.pkl`` in their order: label maps (H, W), None for frames without result.

    A file of ours is read map by map, so that a large one needs no more memory than a small one. Any other list of
    arrays is loaded whole, with arrays of numbers as the only thing that it may contain.

    Raises:
        DataError: missing, truncated, not a list of arrays, or carrying code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD) + 1)
            file.seek(len(_HEAD))
            if head[:-1] == _HEAD and head[-1:] in (_NONE[:1], _GLOBAL[:1], _TAIL):
                yield from _stream(file)
            else:
                file.seek(0)
                yield from _load(file, path)
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})",
            "a complete pickled list of label maps",
            "check the path, or test again",
        ) from error


def _stream(file: BinaryIO) -> Iterator[np.ndarray | None]:
    """What :class:`LabelPickleWriter` writes after the head, and nothing else."""
    while (code := _read(file, 1)) != _TAIL:
        if code == _NONE[:1]:
            _expect(_read(file, 1), _NONE[1:])
            yield None
            continue
        name, integer, height, integer2, width, text, size = _MAP.unpack(code + _read(file, _MAP.size - 1))
        _expect((name, integer, integer2, text), (_GLOBAL, _INTEGER, _INTEGER, _TEXT))
        _expect((height > 0, width > 0, height * width), (True, True, size))
        labels = np.frombuffer(_read(file, size), np.uint8).reshape(height, width)
        _expect(_read(file, len(_MAP_TAIL)), _MAP_TAIL)
        yield labels


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size) if size < 2**31 else b""
    if len(data) < size:
        raise EOFError("it is truncated")
    return data


def _expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError("it is damaged")


def _load(file: BinaryIO, path: Path) -> list[np.ndarray | None]:
    content = load_plain(file)
    kinds = [] if not isinstance(content, list) else [type(e).__name__ for e in content if not _is_entry(e)]
    if kinds or not isinstance(content, list):
        raise DataError(
            f"{path}: " + (f"a list that holds {kinds[0]}" if kinds else f"holds {type(content).__name__}"),
            "a list with a label map, an array (H, W), or None for each frame of the split",
            "the official code stores names of temporary files, which are useless; store label maps or PNGs",
        )
    return content


def _is_entry(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray)
