"""Several processes, one per GPU or on the CPU: what they agree on, exchange and share out.

Without :func:`init`, and in a single process, every function works and exchanges nothing. Numbers on a GPU travel by
nccl; everything else, decisions above all, by gloo between CPUs, so that it waits for no GPU.
"""

from __future__ import annotations

import datetime
import heapq
import os
import pickle
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmseg import launchers
from mmseg.errors import ConfigError, OtherProcessError, SegError
from mmseg.parent import is_alive

LAUNCHERS = launchers.LAUNCHERS
_CHUNK = 64 * 2**20  # bytes of a file in flight at a time
# The wait for an answer of another process. The 10 minutes of torch are too short where the slowest ends an evaluation.
_LONGEST_WAIT = datetime.timedelta(hours=1)
# gloo and nccl have no class of their own for it in all versions
_LOST = re.compile(
    r"connection (was )?(closed|reset)|broken pipe|caused pair closure|socket timeout|timed out waiting|remote process",
    re.IGNORECASE,
)
_device: torch.device | None = None
_neighbours: list[int] = []  # process ids of the other processes on this machine


def init(launcher: str = "none", backend: str | None = None, gpu: int | None = None) -> torch.device:
    """Join the other processes and choose this one's device.

    Args:
        launcher: 'none' (a single process), 'pytorch' (torchrun), 'slurm' or 'mpi'.
        backend: 'gloo' keeps to the CPU; anything else takes nccl if there is a GPU for every process of this machine.
        gpu: number of the GPU of a single process; None takes the first one, if any; negative means the CPU.

    Raises:
        ConfigError: the launcher is unknown or has not started this process, or the processes cannot meet within
            ``$JOIN_TIMEOUT`` seconds.
    """
    global _device
    place = None if launcher == "none" else launchers.find_place(launcher, os.environ)
    _device = launchers.single_device(gpu) if place is None else launchers.device_of(place, backend)
    if _device.type == "cuda":
        torch.cuda.set_device(_device)
    if place is not None:
        launchers.stop_with_launcher(launcher, os.environ)
        _meet(place, *launchers.meeting_point(launcher, os.environ))
    return _device


def _meet(place: launchers.Place, address: str, port: int) -> None:
    """Start the process group, and learn which of the processes are on this machine."""
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.world_size), LOCAL_RANK=str(place.local_rank))
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    on_gpu = device().type == "cuda"
    patience = launchers.join_timeout(os.environ)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=_store_of_all(place, patience),
            rank=place.rank,
            world_size=place.world_size,
            timeout=_LONGEST_WAIT,
            **({"device_id": device()} if on_gpu else {}),
        )
    except (RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0]
        if "EADDRINUSE" in said or "address already in use" in said.lower():
            used, advice = f"port {port} is in use", "set PORT (MASTER_PORT) to another one"
            raise ConfigError(used, "a free port", advice) from error
        raise ConfigError(
            f"process {place.rank} cannot join the others at {address}:{port}: {said}",
            f"{place.world_size} processes that reach each other, each with its own GPU",
            "check MASTER_ADDR, PORT and the number of GPUs, and that all of them have started; JOIN_TIMEOUT says how "
            f"many seconds they wait for each other (now {patience})",
        ) from error
    home = (socket.gethostname(), _process_namespace())
    everyone = all_gather_object((home, os.getpid()))
    _neighbours[:] = [pid for where, pid in everyone if where == home and pid != os.getpid()]


def _store_of_all(place: launchers.Place, patience: int) -> dist.Store:
    """Where the processes leave words for each other, once all of them have come.

    Raises:
        RuntimeError: some have not, within `patience` seconds.
    """
    wait = datetime.timedelta(seconds=patience)
    store = next(dist.rendezvous("env://", place.rank, place.world_size, timeout=wait))[0]
    # torchrun keeps the store over a restart, with the words of processes that are no more
    store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    came = [f"came {rank}" for rank in range(place.world_size)]
    store.set(came[place.rank], "")
    try:
        store.wait(came, wait)
    except RuntimeError as error:
        missing = [rank for rank, key in enumerate(came) if not store.check([key])]
        if not missing:
            raise
        numbers = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        found = f"{len(missing)} of {place.world_size} have not come within {patience} s (number {numbers})"
        raise RuntimeError(found) from error
    store.set_timeout(_LONGEST_WAIT)
    return store


def _process_namespace() -> str:
    """Process ids mean something within one of these only."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def shutdown() -> None:
    """Leave the process group, if there is one; called right before the process ends.

    A gloo group is left to end with the process: taking it apart can wait forever for a process that has ended already
    (seen with torch 2.4), and holds nothing that outlives the process.
    """
    if _active() and device().type == "cuda":
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
    """The device of this process, as chosen by :func:`init`; before that the first GPU, if there is one."""
    return launchers.single_device() if _device is None else _device


def has_lost_neighbour() -> bool:
    """Whether another process of this machine has ended. It may have done its work."""
    return not all(map(is_alive, _neighbours))


# --- agreeing ---------------------------------------------------------------------------------------------------------


def is_lost_connection(error: BaseException) -> bool:
    """Whether `error` is what torch raises when another process has gone."""
    return isinstance(error, RuntimeError) and _active() and bool(_LOST.search(str(error)))


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        raise OtherProcessError(
            f"process {rank()} has lost the connection to another one ({str(error).splitlines()[0]})",
            "all processes to go on until the end",
            "see the message of the process that stopped first, or of the launcher",
        ) from error


def any_of(flag: bool) -> bool:
    """Whether `flag` holds in any process. All must ask."""
    return bool(_reduced(torch.tensor(int(flag)), dist.ReduceOp.MAX)) if _active() else flag


def all_ready(flag: bool) -> bool:
    """Whether `flag` holds in all processes, as before a forward pass that all must make. All must ask."""
    return not any_of(not flag)


def agree(failure: Exception | None = None) -> None:
    """Go on in all processes, or raise in all of them. All must ask.

    Args:
        failure: why this process cannot go on.

    Raises:
        SegError: the failure of the first process that has one, in every process; its :attr:`SegError.rank` is the
            process that shall print it.
        OtherProcessError: in the other processes, where the failure of the first is no SegError.
        Exception: the failure, in the process that has it.
    """
    if not any_of(failure is not None):
        return
    failures = all_gather_object(_portable(failure))
    first = next(number for number, error in enumerate(failures) if error is not None)
    if first != rank():
        failures[first].rank = first
        raise failures[first] from failure
    if isinstance(failure, SegError):
        failure.rank = first
    raise failure


def _portable(failure: Exception | None) -> SegError | None:
    """`failure` as it can be shown to other processes."""
    if failure is None:
        return None
    if isinstance(failure, SegError):
        with suppress(Exception):
            pickle.loads(pickle.dumps(failure))
            return failure
    return OtherProcessError(f"process {rank()}: {type(failure).__name__}: {failure}")


@contextmanager
def together() -> Iterator[None]:
    """Around work that can fail in one process alone: afterwards all have done it, or all raise (:func:`agree`).

    The work must not exchange anything with other processes.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    agree(failure)


# --- exchanging -------------------------------------------------------------------------------------------------------


def barrier() -> None:
    """Wait for all processes."""
    any_of(False)


def all_gather_object(value: Any) -> list[Any]:
    """The (picklable) `value` of every process, in the order of ranks."""
    if not _active():
        return [value]
    values: list[Any] = [None] * world_size()
    with _exchange():
        dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The (picklable) `value` of the main process."""
    if not _active():
        return value
    values = [value]
    with _exchange():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def _reduced(tensor: Tensor, operation: Any) -> Tensor:
    with _exchange():
        dist.all_reduce(tensor, operation)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """Mean of a tensor over the processes, where it is and of its shape, at least in float32; without a gradient.

    All processes must ask, with the same shape: a loss does so whatever its batch holds.
    """
    tensor = tensor.detach()
    if not tensor.is_floating_point() or tensor.element_size() < 4:
        tensor = tensor.float()
    return _reduced(tensor.clone(), dist.ReduceOp.SUM) / world_size() if _active() else tensor


def reduce_mean(values: dict[str, Tensor | float]) -> dict[str, float]:
    """Mean over the processes of each named scalar; all processes must give the same names."""
    scalars = [torch.as_tensor(v, dtype=torch.float32, device=device()).detach().reshape(()) for v in values.values()]
    packed = torch.stack(scalars) if scalars else torch.zeros(0, device=device())  # (number of entries,)
    return dict(zip(values, mean(packed).tolist()))


def broadcast_buffers(model: nn.Module) -> None:
    """Give all processes the main one's buffers that are saved, which are the statistics of batch norm.

    Without SyncBatchNorm each process has its own; what is evaluated must be what is saved.
    """
    if not _active():
        return
    saved = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if name in saved:
            with _exchange():
                dist.broadcast(buffer.detach(), src=0)


# --- sharing out and joining ------------------------------------------------------------------------------------------


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


def send_file(path: Path, to: int = 0) -> None:
    """Send a file to another process, which calls :func:`receive_file`; a bounded part of it is in memory at a time."""
    with _exchange(), path.open("rb") as file:
        dist.send(torch.tensor([path.stat().st_size]), dst=to)
        while chunk := file.read(_CHUNK):
            dist.send(torch.frombuffer(bytearray(chunk), dtype=torch.uint8), dst=to)


def receive_file(sender: int, out: BinaryIO) -> None:
    """Append to `out` the file that `sender` sends with :func:`send_file`."""
    header = torch.zeros(1, dtype=torch.int64)
    with _exchange():
        dist.recv(header, src=sender)
    left = int(header)
    while left:
        chunk = torch.empty(min(left, _CHUNK), dtype=torch.uint8)
        with _exchange():
            dist.recv(chunk, src=sender)
        out.write(chunk.numpy().data)
        left -= chunk.numel()
