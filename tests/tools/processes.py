"""Starts the command-line tools the way a user does."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "tools" / "train.py")]
DIST = [str(ROOT / "tools" / "dist_train.sh")]


def environment() -> dict[str, str]:
    """For CPU processes with a port of their own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {
        **env,
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }


@contextlib.contextmanager
def running(command: list, cwd: pathlib.Path) -> Iterator[subprocess.Popen]:
    """The started command; whatever is left of it at the end is killed, child processes included."""
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def finish(command: list, cwd: pathlib.Path, status: int = 0) -> str:
    """The output of a command, which must end with `status`."""
    with running(command, cwd) as process:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        return output


def read_until(process: subprocess.Popen, pattern: str) -> str:
    """The output up to the first line with `pattern`."""
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"{pattern!r} never came:\n{seen}")
