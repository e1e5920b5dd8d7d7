"""Compiling the kernels, and whether they are to be used."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmseg.errors import ConfigError, WriteError
from mmseg.files import sweep, write_bytes
from mmseg.models.cpu.linear import uses_onednn

logger = logging.getLogger("mmseg")
SWITCH = "MMSEG_KERNELS"  # the environment variable: "on" (or empty, or not set) or "off"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-exceptions", "-fno-rtti"]
_NATIVE = "-march=native"
_NEEDED = ("__AVX2__", "__FMA__")  # of the processor, by the names that compilers have for it
_FOLDER = Path(__file__).parent
_DIGEST = hashlib.sha256().digest_size  # bytes at the end of a file in the cache
_PATIENCE = 300  # seconds for a compiler
_KEPT = 8  # files in the cache: of several compilers, processors or versions of this package
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
_lock, _here = threading.Lock(), threading.local()
_loaded: dict[str, ctypes.CDLL | None] = {}  # by the switch


def kernels_for(x: Tensor, *types: torch.dtype) -> ctypes.CDLL | None:
    """The kernels if `x` is for them: float32 (or one of `types`) on a CPU, outside of graphs, autocast, tracing, and
    transforms such as ``torch.func.vmap``, for which operators with lists of tensors have no rule."""
    if x.dtype not in (torch.float32, *types) or not uses_onednn(x) or torch.jit.is_tracing():
        return None
    if getattr(_here, "without", False) or torch._C._functorch.peek_interpreter_stack() is not None:
        return None
    return library()


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """PyTorch's operators alone, for the forward pass of what learns.

    Its backward pass computes the same again with them; and an optimiser makes steps of full size of gradients that are
    nothing but rounding, which are to be those of the official code.
    """
    before = getattr(_here, "without", False)
    _here.without = True
    try:
        yield
    finally:
        _here.without = before


def library() -> ctypes.CDLL | None:
    """The kernels, compiled now if they are not in the cache; None where there are none.

    Raises:
        ConfigError: the environment variable ``MMSEG_KERNELS`` is neither "on" nor "off".
    """
    switch = os.environ.get(SWITCH) or "on"
    if switch not in _loaded:
        with _lock:
            if switch not in _loaded:
                _loaded[switch] = _load(switch)
    return _loaded[switch]


class Kernel:
    """A function of the kernels, by its name and the types of its arguments.

    Args:
        name: in the source.
        arguments: "p" for each pointer, "i" for each 64-bit integer, "f" for each float.
        integer: whether it returns one; otherwise it returns nothing.
    """

    def __init__(self, name: str, arguments: str, integer: bool = False) -> None:
        self.name, self.integer = name, integer
        self.types = [_TYPES[kind] for kind in arguments]

    def __call__(self, *arguments: Any) -> Any:
        function = getattr(library(), self.name)
        if function.argtypes is None:
            function.restype = ctypes.c_int64 if self.integer else None
            function.argtypes = self.types
        return function(*arguments)


def _load(switch: str) -> ctypes.CDLL | None:
    if switch not in ("on", "off"):
        raise ConfigError(f"the environment variable {SWITCH}={switch!r}", '"on" or "off"', "correct it, or unset it")
    known = os.name == "posix" and platform.machine().lower() in ("x86_64", "amd64")
    compiler = _compiler() if switch == "on" and known else None
    if compiler is None:
        return None
    try:
        return _cached(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or _reason(error)
        logger.warning(
            "the kernels for CPUs cannot be compiled by %s, so PyTorch's operators do their work, slower: %s (set"
            " %s=off to go without them, or CXX to another compiler)",
            shlex.join(compiler),
            said.strip().splitlines()[-1],
            SWITCH,
        )
        return None


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"it has ended with status {error.returncode}, without a message"
    return str(error) or type(error).__name__


def _compiler() -> list[str] | None:
    """The command of a C++ compiler; None without one."""
    named = os.environ.get("CXX", "")
    try:
        chosen = shlex.split(named)
    except ValueError:  # a quotation mark without its partner: no such compiler, which is told
        chosen = [named]
    if chosen:
        return chosen
    return next(([path] for path in map(shutil.which, _COMPILERS) if path), None)


def _cached(compiler: list[str]) -> ctypes.CDLL | None:
    """Kernels from the cache, which holds them by processor, compiler and source; new ones where it has none.

    None on a processor without AVX2: nobody has measured what they gain there.
    """
    macros = _run([*compiler, _NATIVE, "-dM", "-E", "-x", "c++", os.devnull])
    if not all(f"{name} " in macros for name in _NEEDED):
        return None
    sources = sorted(_FOLDER.glob("*.cpp"))
    digest = hashlib.sha256("\0".join([*compiler, *_FLAGS, macros]).encode(errors="surrogateescape"))
    for path in [*sources, *sorted(_FOLDER.glob("*.h"))]:
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:20]}.so"
    folder = cache_folder()
    kept = None if folder is None else folder / name
    if kept and (kernels := _kept(kept)):
        return kernels
    logger.info("compiling the kernels for this processor (once, some ten seconds)")
    with tempfile.TemporaryDirectory(prefix="mmseg-") as made:
        path = Path(made, name)
        _run([*compiler, *_FLAGS, _NATIVE, *map(str, sources), "-o", str(path)])
        kernels = ctypes.CDLL(str(path))  # which stays in memory when its file goes
        if kept:
            with contextlib.suppress(WriteError):  # then the next process compiles its own
                sweep(folder)
                code = path.read_bytes()
                write_bytes(kept, code + hashlib.sha256(code).digest())
                _forget_old(folder)
    return kernels


def _forget_old(folder: Path) -> None:
    """Remove the kernels that have not been used for longest."""
    with contextlib.suppress(OSError):  # another process may do the same
        by_use = sorted(folder.glob("kernels-*.so"), key=lambda path: path.stat().st_mtime)
        for path in by_use[:-_KEPT]:
            path.unlink()


def _kept(path: Path) -> ctypes.CDLL | None:
    """The kernels in a file of the cache, if it is whole (loading a part of one ends the process) and nobody else's."""
    try:
        code = path.read_bytes()
        owner = path.stat().st_uid
    except OSError:  # there is none
        return None
    if hashlib.sha256(code[:-_DIGEST]).digest() != code[-_DIGEST:] or owner not in (os.geteuid(), 0):
        return None
    try:
        kernels = ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning(
            "the kernels in the cache cannot be loaded and are compiled anew: %s (if that comes again, programs may not"
            " start there: set XDG_CACHE_HOME to another folder)",
            error,
        )
        return None
    with contextlib.suppress(OSError):  # somebody else's
        os.utime(path)  # it is in use
    return kernels


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: ``mmseg`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``; None without a home."""
    places = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")  # which is as it is without a home
    return next((Path(place, "mmseg") for place in places if os.path.isabs(place)), None)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE, errors="replace")
    return done.stdout
