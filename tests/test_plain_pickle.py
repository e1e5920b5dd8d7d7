"""Pickles of plain arrays are read whatever wrote them; nothing else is, and nothing that a file names is called."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmseg.plain_pickle import load_plain
from tests.tools.processes import patience

ROOT = Path(__file__).parents[1]
PLAIN = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(3, dtype=">i4"),
    np.array([True, False]),
    np.array(5, np.float16),
    np.array([1 + 2j], np.complex64),
    np.zeros((0, 3)),
    np.float64(0.1),
    np.int64(-7),
    np.bool_(True),
    {"a": [np.arange(2), (np.arange(3), "text", None, 1.5, 2**70, b"bytes", b"")]},
]


class Calls:
    """Pickles as a call, with a state to be set afterwards if given."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple:
        return self.reduced


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and a.dtype == b.dtype and b.flags.writeable and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays(protocol):
    assert same(PLAIN, load_plain(io.BytesIO(pickle.dumps(PLAIN, protocol=protocol))))


def test_names_of_the_other_numpy_generation():
    """numpy 2 calls numpy._core what numpy 1 called numpy.core."""
    program = pickle.dumps(np.arange(3), protocol=2)
    for name in (b"numpy.core.", b"numpy._core."):
        renamed = program.replace(b"numpy._core.", name).replace(b"numpy.core.", name)
        assert same(np.arange(3), load_plain(io.BytesIO(renamed)))


def test_shared_and_circular_containers():
    array = np.arange(2)
    circle = [array, (array,)]
    circle.append(circle)
    read = load_plain(io.BytesIO(pickle.dumps(circle, protocol=2)))
    assert read[2] is read and same(read[0], array) and same(read[1], (array,))
    laughs = ["ha"]
    for _ in range(60):  # 2**60 laughs, if each were looked at
        laughs = [laughs, laughs]
    assert load_plain(io.BytesIO(pickle.dumps(laughs, protocol=2)))[0] is not None


FORBIDDEN = {
    "raw pointers": Calls(np.ndarray, ((), [("a", "O")], b"A" * 64)),
    "objects": np.array([None]),
    "an object dtype": Calls(np.dtype, ("O",)),
    "text": np.array(["a"]),
    "fields": np.zeros(2, [("a", "f4")]),
    "dates": np.datetime64("2020"),
    "flags": Calls(np.dtype, ("f8", False, True), (3, "|", None, None, None, -1, -1, 63)),
    "another numpy function": Calls(np.load, ("file",)),
    "memory of a file": Calls(np.memmap, ("file",)),
    "a shell": Calls(os.system, ("true",)),
    "too few bytes": Calls(np.ndarray, ((2**40,), "uint8", b"")),
    "overflow": Calls(np.ndarray, ((2**62, 4), "uint8", b"")),
    "a negative shape": Calls(np.ndarray, ((-1, -4), "uint8", b"abcd")),
    "strides": Calls(np.ndarray, ((4,), "uint8", b"abcd", 0, (1000,))),
    "a buffer that is an array": Calls(np.ndarray, ((4,), "uint8", np.zeros(4, np.uint8))),
    "the class itself": np.ndarray,
    "an array as a key": {(1, np.float32): 2},
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("content", FORBIDDEN.values(), ids=FORBIDDEN)
def test_anything_else_is_refused(content, protocol):
    with pytest.raises(pickle.UnpicklingError):
        load_plain(io.BytesIO(pickle.dumps(content, protocol=protocol)))


CRAFTED = {
    "empty": b"",
    "no pickle": b"<html>",
    "truncated": pickle.dumps(PLAIN)[:300],
    "an unknown memo index": b"\x80\x02j\xff\xff\xff\x7f.",
    "10**13 bytes": b"\x80\x05\x96" + (10**13).to_bytes(8, "little"),
    "a frame of 10**13 bytes": b"\x80\x05\x95" + (10**13).to_bytes(8, "little"),
    "deep": b"\x80\x02]" + b"]" * 100_000 + b"a" * 100_000 + b".",
    "marks": b"\x80\x02" + b"(" * 500_000 + b".",
    "sets an item of a function": b"\x80\x02cnumpy\nndarray\nX\x01\x00\x00\x00aK\x01s.",
    "sets an attribute of a function": b"\x80\x02cnumpy\nndarray\nN}X\x0a\x00\x00\x00stands_forK\x01s\x86b0].",
    "makes an instance": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a persistent object": b"\x80\x02K\x01Q.",
    "an array without content": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR.",
    "another class of array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85C\x01btR.",
}


@pytest.mark.parametrize("program", CRAFTED.values(), ids=CRAFTED)
def test_crafted_programs_end_quickly_with_one_error(program):
    with pytest.raises(pickle.UnpicklingError):
        load_plain(io.BytesIO(program))


def test_no_memory_is_taken_for_claims(tmp_path):
    """In a process that may take 400 MB beyond what it has: 2 GiB of bytes, and a list of 2**31 remembered objects."""
    (tmp_path / "bytes").write_bytes(b"\x80\x05\x8e" + (2**31).to_bytes(8, "little"))
    (tmp_path / "memo").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    code = (
        "import pickle, resource, sys\n"
        "from mmseg.plain_pickle import load_plain\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        print(load_plain(open(name, 'rb')))\n"
        "    except pickle.UnpicklingError as error:\n"
        "        print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "bytes"), str(tmp_path / "memo")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=patience(40))
    assert done.stdout == "truncated or no pickle (EOFError: truncated)\n[]\n", done.stderr
