"""Python processes forked from one that has imported PyTorch and this package: they start in an instant."""

import atexit
import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import pathlib
import queue
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

# Nothing that looks at the machine, at the environment or starts threads: this package does no work at import time.
PRELOADED = ["torch", "torch.distributed", "torch._dynamo", "cv2", "mmengine.config", "pydantic", "PIL.Image"]
PRELOADED += [f"mmseg.apis.{name}" for name in ("training", "test_command", "infer_command", "evaluation_command")]


class Forked:
    """As much of ``subprocess.Popen`` as the tests need, for ``[python, script or "-c", code, *arguments]``.

    A process of its own with its own memory, descriptors, group, signals and exit status, whose environment is `env`
    and nothing else. Unlike one that starts from nothing it has PyTorch and this package imported already, and its
    parent is not the tests: what a tool says before it imports PyTorch, and what launchers do with their processes,
    needs a real start.

    Args:
        merged: one output, as of ``stderr=subprocess.STDOUT``.
        largest_file: bytes beyond which no file can grow, as on a full disk.
    """

    def __init__(
        self, command: list, env: dict[str, str], cwd: pathlib.Path, merged: bool = False,
        largest_file: int | None = None,
    ) -> None:  # fmt: skip
        pipes = [multiprocessing.connection.Pipe(duplex=False) for _ in range(1 if merged else 2)]
        self._outputs = [_Output(reader) for reader, _ in pipes]
        writers = [writer for _, writer in pipes]
        words = [str(word) for word in command[1:]]
        start_time()
        self._process = _SERVER.Process(target=_become, args=(words, env, str(cwd), writers, largest_file))
        self._process.start()
        for writer in writers:
            writer.close()  # so that an output ends with the last process that has it
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Of a process that has ended; negative if a signal has ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    @property
    def stdout(self) -> Iterator[str]:
        """The lines that have not been read yet, as they come."""
        return self._outputs[0].lines()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What is left of the two outputs; the second is empty if they are merged."""
        out, err = [output.rest(timeout) for output in self._outputs] + [""] * (2 - len(self._outputs))
        self.wait(timeout)
        return out, err

    def send_signal(self, signum: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self._process.join()


class _Output:
    """Reads along, so that the process never waits for a reader."""

    def __init__(self, reader: multiprocessing.connection.Connection) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader: multiprocessing.connection.Connection) -> None:
        with reader, open(reader.fileno(), errors="replace", closefd=False) as file:
            for line in file:
                self._lines.put(line)
        self._lines.put(None)

    def lines(self) -> Iterator[str]:
        yield from iter(self._lines.get, None)
        self._lines.put(None)

    def rest(self, timeout: float) -> str:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("the output of a forked process", timeout)
        return "".join(self.lines())


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(PRELOADED)


@functools.cache
def start_time() -> float:
    """Seconds that the process took to start that all others are forked from."""
    began = time.monotonic()
    kept = dict(os.environ)
    try:
        os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")  # it imports as the forked ones would
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    first = _SERVER.Process(target=_find_this_package)
    first.start()
    first.join()
    assert first.exitcode == 0, "the mmseg that is installed here is not the one beside these tests"
    return time.monotonic() - began


def _find_this_package() -> None:
    sys.exit(not pathlib.Path(__file__).is_relative_to(pathlib.Path(sys.modules["mmseg"].__file__).parents[1]))


def _become(words: list[str], env: dict[str, str], cwd: str, writers: list, largest_file: int | None) -> None:
    os.setsid()
    for number, writer in ((1, writers[0]), (2, writers[-1])):
        os.dup2(writer.fileno(), number)
    for writer in writers:
        writer.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.modules["torch"].set_num_threads(int(env["OMP_NUM_THREADS"]))
    code = words[1] if words[0] == "-c" else None
    sys.argv = words if code is None else ["-c", *words[2:]]
    sys.path[:0] = ["" if code is not None else str(pathlib.Path(words[0]).parent), *env["PYTHONPATH"].split(":")]
    try:
        if code is None:
            runpy.run_path(words[0], run_name="__main__")
        else:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out
