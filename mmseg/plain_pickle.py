"""Pickles read without trust: plain values and NumPy arrays, and what an archive of PyTorch claims to hold.

A pickle is a program. What it may name stands here: the few functions by which NumPy's own pickles make dtypes, arrays
and numbers, and each name leads to a stand-in that checks its arguments: an array is made of as many bytes as its shape
and dtype need, and the dtype is a plain number type. (NumPy's own functions would trust the file: an array of dtype
object made of bytes is an array of pointers to anywhere.) :func:`load_plain` reads a pickle file; files of PyTorch are
read by PyTorch, with :data:`TORCH_GLOBALS` as what they may name (:mod:`mmseg.weights`), after :func:`check_archive`.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import numpy as np

_PLAIN_DTYPE = re.compile(
    r"[<>=|]?(\?|b1|[iu][1248]|f[248]|c8|c16)|bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)"
)
_PLAIN_STATE = (None, None, None, -1, -1, 0)  # no sub-array, names, fields; size and alignment of the type; no flags


class DType:
    """Stands for a dtype while a pickle is read: made from its name, then told the byte order."""

    value: np.dtype | None = None

    def __init__(self, name: Any = None, align: Any = False, copy: Any = True) -> None:
        if not isinstance(name, str) or not _PLAIN_DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(f"it asks for an array of dtype {str(name)[:40]!r}, which is no plain number")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[0] not in (3, 4) or state[2:] != _PLAIN_STATE:
            raise pickle.UnpicklingError("it asks for a dtype that is no plain number")
        if self.value is None or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"a dtype of byte order {state[1]!r}")
        self.value = self.value.newbyteorder(state[1])


class Array:
    """Stands for an array while a pickle is read: made empty, then told its content."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array with an unknown kind of content")
        _, shape, dtype, fortran, data = state
        self.value = make_array(data, dtype, shape, "F" if fortran else "C")


def make_array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """A writable array of the bytes `data`.

    Raises:
        pickle.UnpicklingError: the bytes do not fit the shape, or the dtype is no plain number.
    """
    if isinstance(dtype, str):
        dtype = DType(dtype)
    if not isinstance(dtype, DType) or dtype.value is None or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("it asks for an array that is not made of bytes and a dtype of plain numbers")
    if type(shape) is int:
        shape = (shape,)
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("an array whose shape is not made of whole numbers")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype.value} made of {len(data)} bytes")
    return np.frombuffer(bytearray(data), dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _ndarray(shape: Any = None, dtype: Any = None, data: Any = None, *more: Any) -> np.ndarray:
    if more:
        raise pickle.UnpicklingError("it asks for an array with offsets or strides")
    return make_array(data, dtype, shape)


def _reconstruct(subtype: Any, shape: Any = None, code: Any = None) -> Array:
    if getattr(subtype, "stands_for", None) is not _ndarray:
        raise pickle.UnpicklingError("it asks for an array of another class than numpy.ndarray")
    return Array()


def _scalar(dtype: Any = None, data: Any = b"") -> np.generic:
    return make_array(data, dtype, (1,))[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """As NumPy does it with pickle protocol 5; order K: the axes are those of `shape` in another order."""
    array = make_array(data, dtype, shape, order)
    return array.transpose(axes) if order == "K" and axes is not None else array


def _encode(text: Any, encoding: Any = "latin1", *errors: Any) -> bytes:
    """Bytes in pickles of protocol 2 and below; empty ones are made by :func:`_bytes`."""
    return codecs.encode(str(text), "latin1" if encoding in ("latin1", "latin-1") else "utf-8")


def _bytes(data: Any = b"") -> bytes:
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("it asks for bytes made of something else")
    return data


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): DType,
    ("_codecs", "encode"): _encode,
    **{(module, name): _bytes for module in ("__builtin__", "builtins") for name in ("bytes", "bytearray")},
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # numpy 2 renamed numpy.core
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _Sealed:
    """A function that a pickle can call and not change (pickles can set attributes of what they name)."""

    __slots__ = ("stands_for",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "stands_for", function)

    def __call__(self, *args: Any) -> Any:
        return self.stands_for(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it sets an attribute of a function")


class _PlainUnpickler(pickle._Unpickler):  # the one written in Python: a false index makes it reserve no memory
    def find_class(self, module: str, name: str) -> _Sealed:
        if (module, name) not in _FUNCTIONS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which plain values and arrays do not need")
        return _Sealed(_FUNCTIONS[module, name])


class _Bounded:
    """A file that refuses to read more than it has, before memory is reserved for it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.readline = file, file.readline
        start = file.tell()
        self.size = file.seek(0, 2)
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise EOFError("truncated")
        return self.file.read(count)


def load_plain(file: BinaryIO) -> Any:
    """The content of a pickle file: numbers, text, containers and arrays of plain numbers.

    Raises:
        pickle.UnpicklingError: it is damaged, or asks for anything else.
    """
    try:
        return resolve(_PlainUnpickler(_Bounded(file)).load())
    except (OSError, pickle.UnpicklingError):
        raise
    except Exception as error:  # a damaged program can fail in any way
        raise pickle.UnpicklingError(f"truncated or no pickle ({type(error).__name__}: {str(error)[:100]})") from error


def resolve(content: Any) -> Any:
    """`content` with the arrays in place of what stood for them while it was read.

    Raises:
        pickle.UnpicklingError: something unfinished, or a function, is left.
    """
    return _resolve(content, {})


def _resolve(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """`seen`: containers by id, with what became of them; they may contain themselves, or each other many times."""
    kind = type(value)
    if kind in (Array, DType):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        return value.value
    if kind is _Sealed or (kind in (type, FunctionType) and value in _STAND_INS):
        raise pickle.UnpicklingError("it holds a function")
    if kind not in (dict, OrderedDict, list, tuple, set):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    if kind in (dict, OrderedDict):
        for key, entry in value.items():
            if _resolve(key, seen) is not key:
                raise pickle.UnpicklingError("an array as a key")
            value[key] = _resolve(entry, seen)
    elif kind is list:
        value[:] = [_resolve(entry, seen) for entry in value]
    else:
        parts = [_resolve(entry, seen) for entry in value]
        if any(new is not old for new, old in zip(parts, value)):
            seen[id(value)] = value, kind(parts)
    return seen[id(value)][1]


def _named(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under the name by which PyTorch is to know it (before 2.5 it knows no other way)."""

    def stand_in(*args: Any) -> Any:
        return function(*args)

    stand_in.stands_for = function
    stand_in.__module__, stand_in.__name__, stand_in.__qualname__ = module, name, name
    return stand_in


TORCH_GLOBALS = [*(_named(*names, function) for names, function in _FUNCTIONS.items()), Array, DType]
"""What files of PyTorch may name, for ``torch.serialization.safe_globals``; :func:`resolve` what is read."""

_STAND_INS = {*TORCH_GLOBALS, *_FUNCTIONS.values()}


# --- archives of PyTorch ----------------------------------------------------------------------------------------------

_ITEM_SIZES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}  # bytes of an element; others have at least 1


def check_archive(path: Path) -> None:
    """Compare what a file of PyTorch's zip format claims with what it has, before memory is reserved for it.

    Not all versions of PyTorch do: they read beyond the end of a tensor that is shorter than claimed.

    Raises:
        pickle.UnpicklingError: the file holds less than it claims.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:  # torch never compresses
            raise pickle.UnpicklingError("the archive is smaller than what it claims to hold")
        for name in archive.namelist():
            if name.partition("/")[2] == "data.pkl":
                for storage, key, count in _Claims(io.BytesIO(archive.read(name))).claims():
                    if count * _ITEM_SIZES.get(storage, 1) > sizes.get(f"data/{key}", 0):
                        raise pickle.UnpicklingError(f"tensor {key} is shorter than the {count} elements it claims")


class _Claims(pickle._Unpickler):
    """Finds the storages that a pickle of PyTorch refers to, without making anything that it asks for."""

    def claims(self) -> list[tuple[str, str, int]]:
        """(class of the storage, its key in the archive, number of elements) of each."""
        self._found: list[tuple[str, str, int]] = []
        self.load()
        return self._found

    def find_class(self, module: str, name: str) -> type:
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        _, storage, key, _, count = pid
        if type(key) is not str or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a tensor without a number of elements")
        self._found.append((storage.__name__, key, count))
        return _Inert()


class _Inert:
    """Takes part in an unpickling and does nothing."""

    def __new__(cls, *args: Any) -> _Inert:
        return object.__new__(_Inert)

    def __setstate__(self, state: Any) -> None:
        """Nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing."""
