"""Starts the command-line tools the way a user does."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from mmseg.launchers import LOST_STATUS
from tests.tools.forked import Forked, start_time

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "tools" / "train.py")]
DIST = [str(ROOT / "tools" / "dist_train.sh")]
ENVIRONMENTS = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    "mpi": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
}


def slowness() -> float:
    """How many times longer than on an idle laptop a process takes to start on this machine, just now."""
    return max(1.0, start_time() / 3.0)


def patience(seconds: float) -> float:
    """The timeout for what takes at most `seconds` on an idle laptop; long enough if the machine gets busier yet."""
    return 3 * seconds * slowness()


def environment(**more: str) -> dict[str, str]:
    """Of CPU processes of this checkout; PORT is left to choose itself."""
    hidden = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PORT", "MASTER_ADDR", "MASTER_PORT")
    hidden += ("DISPLAY", "WAYLAND_DISPLAY")
    env = {
        k: v for k, v in os.environ.items() if k not in hidden and not k.startswith(("SLURM_", "OMPI_", "TORCHELASTIC"))
    }
    env |= {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return env | more


@contextlib.contextmanager
def running(
    command: list, cwd: pathlib.Path, largest_file: int | None = None, **env: str
) -> Iterator[subprocess.Popen | Forked]:
    """The started command; whatever is left of it at the end is killed, child processes included.

    ``[python, ...]`` is forked, and may be kept from making a large file; the shell scripts really start.
    """
    if command[0] == sys.executable:
        process = Forked(command, environment(**env), cwd, merged=True, largest_file=largest_file)
    else:
        process = subprocess.Popen(
            [str(c) for c in command],
            cwd=cwd,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for pid in [process.pid, *descendants(process.pid)] if process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def finish(command: list, cwd: pathlib.Path, status: int = 0, seconds: float = 60, **how: Any) -> str:
    """The output of a command, which must end with `status` within the `seconds` that it may take on a laptop; `how`:
    arguments of :func:`running`."""
    with running(command, cwd, **how) as process:
        output, _ = process.communicate(timeout=patience(seconds))
        assert process.returncode == status, output
        return output


def descendants(pid: int) -> list[int]:
    """The living processes that a process has started, and theirs (Linux; elsewhere none are found)."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found = parents.get(pid, [])
    for child in found:
        found.extend(parents.get(child, []))
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, which must come true within the `seconds` that it may take on a laptop."""
    end = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def read_until(process: subprocess.Popen, pattern: str) -> str:
    """The output up to the first line with `pattern`."""
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"{pattern!r} never came:\n{seen}")


def launch(
    program: str | pathlib.Path, *arguments: object, launcher: str = "pytorch", cwd: pathlib.Path = ROOT,
    python_path: str = "", **how: Any,
) -> list[Forked]:  # fmt: skip
    """Two processes with the variables that a launcher gives them.

    Args:
        program: code, or the path of a script.
        python_path: a folder with modules of their own.
        how: arguments of :class:`Forked`.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, *(["-c", program] if isinstance(program, str) else [program]), *arguments]
    processes = []
    for rank in (0, 1):
        env = environment(MASTER_PORT=str(port)) | dict(zip(ENVIRONMENTS[launcher], map(str, (rank, 2, rank, 2))))
        if python_path:
            env["PYTHONPATH"] = f"{python_path}:{ROOT}"
        if launcher == "pytorch":
            env["MASTER_ADDR"] = "127.0.0.1"
        if launcher == "slurm":
            env["SLURM_NODELIST"] = "127.0.0.1"
        processes.append(Forked(command, env, cwd, **how))
    return processes


def finish_all(processes: list[Forked]) -> list[tuple[int, str, str]]:
    """Status, output and messages of each."""
    try:
        outputs = [p.communicate(timeout=patience(30)) for p in processes]
        return [(p.returncode, *output) for p, output in zip(processes, outputs)]
    finally:
        for process in processes:
            process.kill()


def finish_two(tool: str, cwd: pathlib.Path, *arguments: object, status: int = 0, **how: Any) -> str:
    """What both processes of a tool say, which must end with `status` of their own accord; where one has failed, the
    other may say that it lost the connection. A launcher would end it meanwhile, which other tests are about."""
    script = ROOT / "tools" / tool
    results = finish_all(launch(script, *arguments, "--launcher", "pytorch", cwd=cwd, merged=True, **how))
    output = "".join(said for _, said, _ in results)
    found = {returncode for returncode, *_ in results}
    assert found - ({LOST_STATUS} if status else set()) == {status}, output
    return output


@contextlib.contextmanager
def python(code: str, *args: object) -> Iterator[subprocess.Popen]:
    """A real process that runs `code`; killed at the end if it still lives."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, args)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
