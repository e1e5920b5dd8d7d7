"""Several processes: one per GPU over nccl, or CPU processes over gloo; who tests which video; joining of files.

The launcher (torchrun, slurm, mpirun) tells each process its rank through the environment.
"""

from __future__ import annotations

import datetime
import heapq
import logging
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist

from mmseg.errors import ConfigError, DataError, nearest

logger = logging.getLogger("mmseg.engine")

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
_DEFAULT_PORT = "29500"
_CHUNK = 64 * 2**20  # bytes of a file in flight at a time
_device = torch.device("cpu")


def init(launcher: str = "none", backend: str | None = None, gpu: int | None = None) -> torch.device:
    """Join the process group and choose this process's device.

    Args:
        launcher: 'none' (a single process), 'pytorch' (torchrun), 'slurm' or 'mpi'.
        backend: 'nccl' or 'gloo'; None takes nccl if there is a GPU for every process of this machine, else gloo.
        gpu: number of the GPU of a single process; None takes the first one, if any; negative means the CPU.

    Raises:
        ConfigError: the launcher is unknown, or its environment variables are not there.
    """
    global _device
    if launcher not in LAUNCHERS:
        raise ConfigError(f"launcher {launcher!r}", f"one of {', '.join(LAUNCHERS)}", nearest(launcher, LAUNCHERS))
    if launcher == "none":
        _device = _single_device(gpu)
        return _device
    if launcher != "pytorch":
        _export_environment(launcher)
    local, local_size = _environment("LOCAL_RANK", launcher), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    use_gpu = gpus >= local_size and backend != "gloo"
    if gpus and not use_gpu and local == 0:
        logger.warning("%d processes on a machine with %d GPUs: training on the CPU over gloo", local_size, gpus)
    _device = torch.device("cuda", local) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(_device)
    # the default of 10 minutes is too short for processes that wait for the slowest to finish an evaluation
    dist.init_process_group("nccl" if use_gpu else "gloo", timeout=datetime.timedelta(hours=1))
    return _device


def _single_device(gpu: int | None) -> torch.device:
    if not torch.cuda.is_available() or (gpu is not None and gpu < 0):
        return torch.device("cpu")
    gpu = gpu or 0
    if gpu >= torch.cuda.device_count():
        raise ConfigError(
            f"GPU number {gpu}", f"0 to {torch.cuda.device_count() - 1}", "give another number to --gpu-ids"
        )
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def _environment(name: str, launcher: str) -> int:
    try:
        return int(os.environ[name])
    except KeyError:
        raise ConfigError(
            f"--launcher {launcher}, but the environment variable {name} is not set",
            f"a process started by {launcher if launcher != 'pytorch' else 'torchrun'}",
            "start it through tools/dist_*.sh or tools/slurm_*.sh, or leave --launcher away",
        ) from None


def _export_environment(launcher: str) -> None:
    """Translate the variables of slurm or Open MPI into those of torchrun."""
    source = {
        "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
        "mpi": (
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        ),
    }[launcher]
    rank, size, local = (_environment(name, launcher) for name in source[:3])
    # slurm may not say how many tasks this node has: then as many as there are GPUs, at most all
    local_size = int(os.environ.get(source[3], min(size, torch.cuda.device_count() or size)))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local), LOCAL_WORLD_SIZE=str(local_size))
    os.environ.setdefault("MASTER_PORT", _DEFAULT_PORT)
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_slurm_node() if launcher == "slurm" else "127.0.0.1"


def _first_slurm_node() -> str:
    """Name of the first machine of a slurm job, where rank 0 runs."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
    if "[" not in nodes:
        return nodes.split(",")[0]
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"cannot ask slurm for the first node of {nodes!r} ({error})", "a working scontrol", "set MASTER_ADDR"
        ) from error
    return names.stdout.split()[0]


def shutdown() -> None:
    """Leave the process group, if there is one; called right before the process ends.

    A gloo group is left to end with the process: taking it apart can wait forever for a process that has ended already
    (seen with torch 2.4), and holds nothing that outlives the process.
    """
    if _active() and dist.get_backend() != "gloo":
        dist.destroy_process_group()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among all, counted from 0."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _active() else 1


def is_main() -> bool:
    """Whether this process writes the files and the log."""
    return rank() == 0


def device() -> torch.device:
    """The device of this process, as chosen by :func:`init`."""
    return _device


def barrier() -> None:
    """Wait for all processes."""
    if _active():
        dist.barrier()


def all_gather_object(value: Any) -> list[Any]:
    """The (picklable) `value` of every process, in the order of ranks."""
    if not _active():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The (picklable) `value` of the main process."""
    if not _active():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=_device)
    return values[0]


def reduce_mean(values: dict[str, torch.Tensor | float]) -> dict[str, float]:
    """Mean over the processes of each named scalar; all processes must give the same names.

    One transfer from the device and one message, whatever the number of entries.
    """
    scalars = [torch.as_tensor(v, device=_device).detach().float().reshape(()) for v in values.values()]
    packed = torch.stack(scalars) if scalars else torch.zeros(0, device=_device)  # (number of entries,)
    if _active():
        dist.all_reduce(packed)
        packed /= world_size()
    return dict(zip(values, packed.tolist()))


def share_videos(num_frames: Sequence[int], world_size: int) -> list[int]:
    """The rank of each video, so that all processes get about the same number of frames.

    Longest video first, each to the process with the fewest frames so far. A video is never split: its stream
    has a memory.
    """
    load = [(0, rank) for rank in range(world_size)]
    owners = [0] * len(num_frames)
    for index in sorted(range(len(num_frames)), key=lambda i: (-num_frames[i], i)):
        frames, rank = heapq.heappop(load)
        owners[index] = rank
        heapq.heappush(load, (frames + num_frames[index], rank))
    return owners


@contextmanager
def joining() -> Iterator[None]:
    """Around what all processes do together at the end of a run: says so when one of them has gone.

    Raises:
        DataError: the connection broke. The process that stopped first has said why.
    """
    try:
        yield
    except RuntimeError as error:  # gloo and nccl have no class of their own for it in all versions
        if world_size() == 1:
            raise
        raise DataError(
            f"another process stopped ({str(error).splitlines()[0]})",
            "all processes to finish their videos",
            "see the message of the process that stopped first",
        ) from error


def send_file(path: Path, to: int = 0) -> None:
    """Send a file to another process, which calls :func:`receive_file`; a bounded part of it is in memory at a time."""
    place = device()
    size = path.stat().st_size
    dist.send(torch.tensor([size], dtype=torch.int64, device=place), dst=to)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            dist.send(torch.frombuffer(bytearray(chunk), dtype=torch.uint8).to(place), dst=to)


def receive_file(sender: int, out: BinaryIO) -> None:
    """Append to `out` the file that `sender` sends with :func:`send_file`."""
    place = device()
    header = torch.zeros(1, dtype=torch.int64, device=place)
    dist.recv(header, src=sender)
    left = int(header)
    while left:
        chunk = torch.empty(min(left, _CHUNK), dtype=torch.uint8, device=place)
        dist.recv(chunk, src=sender)
        out.write(chunk.cpu().numpy().data)
        left -= chunk.numel()
