"""What a launcher (torchrun, slurm, mpirun) tells its processes: their rank, their GPU, and where they meet."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmseg.errors import ConfigError, nearest
from mmseg.parent import is_alive, when_parent_ends

if TYPE_CHECKING:  # tools/launch.py tells mistakes before it imports PyTorch, which takes seconds
    import torch

logger = logging.getLogger("mmseg.engine")

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
LAUNCHER_PID = "MMSEG_LAUNCHER_PID"  # tools/launch.py tells its processes whose children they are
RUN_ID = "MMSEG_RUN_ID"  # tools/launch.py tells its processes which start of theirs they belong to
LOST_STATUS = 75  # exit status of a process that stops because another has failed; the launcher names that one
_PATIENCE = 60.0  # seconds to finish an iteration and save when the launcher has gone
_VARIABLES = {  # rank, number of processes, the same on this machine
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    "mpi": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
}
_JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE")  # the same in all processes of a job
JOIN_TIMEOUT = 600  # seconds in which all processes must come; $JOIN_TIMEOUT sets it
_PORTS = range(20000, 29000)  # to draw from: none that the system hands out or that is anybody's default


@dataclass(frozen=True)
class Place:
    """Where the launcher has put a process.

    Attributes:
        rank: number of the process among all.
        world_size: number of all.
        local_rank: its number among those of its machine.
        local_size: number of those.
        sees_all_gpus: the processes of a machine see the same GPUs, which torchrun never changes. Others may give each
            process a GPU of its own.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    sees_all_gpus: bool


def find_place(launcher: str, environ: Mapping[str, str]) -> Place:
    """Read the place of this process from its environment.

    Raises:
        ConfigError: the launcher is unknown or has not started this process.
    """
    if launcher not in _VARIABLES:
        raise ConfigError(f"launcher {launcher!r}", f"one of {', '.join(LAUNCHERS)}", nearest(launcher, LAUNCHERS))
    rank, world_size, local_rank = _numbers(_VARIABLES[launcher][:3], launcher, environ)
    local_name = _VARIABLES[launcher][3]
    if launcher == "slurm" and "SLURM_STEP_TASKS_PER_NODE" in environ:
        local_size = tasks_of_node(environ["SLURM_STEP_TASKS_PER_NODE"], int(environ.get("SLURM_NODEID", 0)))
    elif local_name in environ:
        [local_size] = _numbers([local_name], launcher, environ)
    else:
        local_size = 1
    return Place(rank, world_size, local_rank, max(local_size, local_rank + 1), "TORCHELASTIC_RUN_ID" in environ)


def _numbers(names: Sequence[str], launcher: str, environ: Mapping[str, str]) -> list[int]:
    starter = {"pytorch": "torchrun", "mpi": "mpirun"}.get(launcher, launcher)
    remedy = "start it through tools/dist_*.sh or tools/slurm_*.sh, or leave --launcher away"
    missing = [name for name in names if name not in environ]
    if missing:
        raise ConfigError(
            f"--launcher {launcher}, but the environment has no {', '.join(missing)}",
            f"a process started by {starter}",
            remedy,
        )
    for name in names:
        if not environ[name].isdecimal():
            raise ConfigError(f"environment variable {name} = {environ[name]!r}", f"a number, from {starter}", remedy)
    return [int(environ[name]) for name in names]


def tasks_of_node(counts: str, node: int) -> int:
    """How many tasks slurm has put on a node: ``"4(x2),3"`` are 4 on nodes 0 and 1, and 3 on node 2."""
    every = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        every += [int(count)] * int(times or 1)
    return every[node] if node < len(every) else 1


def choose_gpu(place: Place, visible: int, backend: str | None = None) -> int | None:
    """The number of the GPU for a process that sees `visible` of them; None is the CPU.

    A process gets the GPU of its local rank where there is one for every process of the machine, or the only one that
    it sees where that is its own (``srun --gpus-per-task=1``: every task sees one GPU, numbered 0).
    """
    if backend == "gloo":
        return None
    if visible >= place.local_size:
        return place.local_rank
    if visible == 1 and not place.sees_all_gpus:
        return 0
    return None


def device_of(place: Place, backend: str | None = None) -> torch.device:
    """The device of a process; says so where there are GPUs that it does not take."""
    import torch

    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpu = choose_gpu(place, visible, backend)
    if gpu is None:
        if visible and place.local_rank == 0:
            logger.warning(
                "%d processes on a machine with %s: running on the CPU over gloo", place.local_size, gpu_names()
            )
        return torch.device("cpu")
    return torch.device("cuda", gpu)


def single_device(gpu: int | None = None) -> torch.device:
    """The device of a process without a launcher.

    Args:
        gpu: its number; None takes the first, if any; negative means the CPU.

    Raises:
        ConfigError: there is no such GPU.
    """
    import torch

    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None or gpu < 0:
        return torch.device("cuda", 0) if visible and gpu is None else torch.device("cpu")
    if gpu >= visible:
        raise ConfigError(
            f"GPU number {gpu}, but this process sees {gpu_names()}",
            f"a number from 0 to {visible - 1}" if visible else "the CPU",
            "give another number" if visible else "use --device cpu (tools/train.py: --gpus 0)",
        )
    return torch.device("cuda", gpu)


def gpu_names() -> str:
    """The visible GPUs for messages: ``2 GPUs (0: NVIDIA A100, 1: NVIDIA A100)``."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(f"{number}: {torch.cuda.get_device_name(number)}" for number in range(count))
    return f"{count} GPU{'s' if count != 1 else ''} ({names})" if names else "no GPU"


def meeting_point(launcher: str, environ: Mapping[str, str]) -> tuple[str, int]:
    """Address and port at which the processes meet: as the environment says, else the first machine of the job, and a
    port that follows from the job, so that two jobs on a machine do not meet each other.

    Raises:
        ConfigError: the port is none, or slurm cannot name the first machine.
    """
    address = environ.get("MASTER_ADDR")
    if not address:
        address = first_slurm_node(environ) if launcher == "slurm" else "127.0.0.1"
    if environ.get("MASTER_PORT"):
        return address, check_port(environ["MASTER_PORT"])
    job = " ".join(environ.get(name, "") for name in _JOB)
    return address, _PORTS[zlib.crc32(job.encode()) % len(_PORTS)]


def check_port(text: str) -> int:
    """`text` as a port.

    Raises:
        ConfigError: it is none.
    """
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise ConfigError(f"PORT is {text!r}", "a number from 1 to 65535", "correct it, or leave PORT unset")
    return int(text)


def join_timeout(environ: Mapping[str, str]) -> int:
    """Seconds that a process waits for the others to start.

    Raises:
        ConfigError: $JOIN_TIMEOUT is no such number.
    """
    text = environ.get("JOIN_TIMEOUT") or str(JOIN_TIMEOUT)
    if not (text.isdecimal() and 1 <= int(text) <= 86400):
        raise ConfigError(
            f"JOIN_TIMEOUT is {text!r}", "a number of seconds from 1 to 86400", "correct it, or leave it unset"
        )
    return int(text)


@dataclass(frozen=True)
class Restart:
    """How often a launcher has started a run anew.

    Attributes:
        run: what all starts of the run have in common, and no other run; None if it is started once only.
        number: 0 is the first start.
    """

    run: str | None
    number: int


def restart(environ: Mapping[str, str]) -> Restart:
    """Whether tools/launch.py has started this process anew after a crash, or slurm its job after a preemption."""
    job = environ.get("SLURM_JOB_ID")
    run = environ.get(RUN_ID) or (job and f"slurm {job}") or None
    counts = [environ.get(name, "") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
    return Restart(run, sum(int(count) for count in counts if count.isdecimal()) if run else 0)


def first_slurm_node(environ: Mapping[str, str]) -> str:
    """Name of the first machine of a slurm job, where rank 0 runs."""
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "127.0.0.1")
    if "[" not in nodes:
        return nodes.split(",")[0]
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return names.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(
            f"cannot ask slurm for the first node of {nodes!r} ({error})", "a working scontrol", "set MASTER_ADDR"
        ) from error


def stop_with_launcher(launcher: str, environ: Mapping[str, str]) -> None:
    """Ask this process to stop, as by SIGTERM, when its launcher has gone: a job started anew would have two writers.

    Not for processes that a person has started by hand, who may leave.
    """
    if launcher == "pytorch" and "TORCHELASTIC_RUN_ID" not in environ:
        return
    parent = os.getppid()
    starter = int(environ.get(LAUNCHER_PID, parent))
    when_parent_ends(parent if is_alive(starter) else starter, _stop)


def _stop() -> None:
    logger.warning("the launcher has gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os.kill(os.getpid(), signal.SIGTERM)  # the second ends it, whatever it is doing
