"""Which process tests which video, and how its files reach the main process."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
import torch.distributed as dist

from mmseg.engine import distributed
from mmseg.errors import DataError

_CHUNK = 64 * 2**20  # bytes in flight at a time


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
        if distributed.world_size() == 1:
            raise
        raise DataError(
            f"another process stopped ({str(error).splitlines()[0]})",
            "all processes to finish their videos",
            "see the message of the process that stopped first",
        ) from error


def send_file(path: Path, to: int = 0) -> None:
    """Send a file to another process, which calls :func:`receive_file`; a bounded part of it is in memory at a time."""
    device = distributed.device()
    size = path.stat().st_size
    dist.send(torch.tensor([size], dtype=torch.int64, device=device), dst=to)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            dist.send(torch.frombuffer(bytearray(chunk), dtype=torch.uint8).to(device), dst=to)


def receive_file(sender: int, out: BinaryIO) -> None:
    """Append to `out` the file that `sender` sends with :func:`send_file`."""
    device = distributed.device()
    header = torch.zeros(1, dtype=torch.int64, device=device)
    dist.recv(header, src=sender)
    left = int(header)
    while left:
        chunk = torch.empty(min(left, _CHUNK), dtype=torch.uint8, device=device)
        dist.recv(chunk, src=sender)
        out.write(chunk.cpu().numpy().data)
        left -= chunk.numel()
