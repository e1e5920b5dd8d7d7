"""One measurement: what it is of, and the row that holds its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmseg.engine.measure import PeakMemory, StageTimer, device_name
from mmseg.models.cpu.bfloat16 import mixed_type
from mmseg.models.cpu.kernels.library import library


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        config: config file.
        options: dotted config keys and their new values.
        size: (height, width) of a frame, of a training crop in training. The test pipeline rounds up to its divisor.
        device: cpu, cuda or cuda:N.
        amp: 'bfloat16' or 'float16' for autocast, None for float32.
        repeats: measured frames or steps; the median counts, where frames are predicted in blocks that of whole blocks.
        clips: batch of a training step; 0 takes the config's.
        compile: ``torch.compile``: what ``compile=True`` compiles in a training, or the backbone of a stream.
        reference: measure the formulas of the paper (``tests/reference`` of a checkout) with the same weights.
        threads: CPU threads; 0 leaves PyTorch's choice.
        objects, memory_frames: followed objects and frames in memory, for models that follow objects.
        cpu_time: seconds that a CPU works, instead of those that pass: for a machine that others use, too.
    """

    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (480, 853)
    device: str = "cpu"
    amp: str | None = None
    repeats: int = 5
    clips: int = 0
    compile: bool = False
    reference: bool = False
    threads: int = 0
    objects: int = 2
    memory_frames: int = 12
    cpu_time: bool = False


Row = dict[str, Any]


def dtype_of(job: Job) -> torch.dtype | None:
    return getattr(torch, job.amp or "", None)


def autocast_of(job: Job, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=mixed_type(dtype_of(job), device), enabled=bool(job.amp))


def setting(job: Job, device: torch.device) -> Row:
    """What a measurement holds for, besides what was measured."""
    return {
        "formulation": "reference" if job.reference else "product",
        "size": list(job.size),
        "precision": (job.amp or "float32") + (", compiled" if job.compile else ""),
        "device": device_name(device)
        + ("" if device.type != "cpu" or library() else ", no kernels")
        + (", CPU time" if job.cpu_time else ""),
    }


def row_of(
    job: Job,
    device: torch.device,
    what: str,
    cache: str,
    timer: StageTimer,
    memory: PeakMemory,
    network: Sequence[int],
    frames: int = 1,
) -> Row:
    """What was measured, in seconds per step, or per frame where a step predicts `frames` of them."""
    seconds = {stage: value / frames for stage, value in timer.medians().items()}
    return {
        "what": what,
        "cache": cache,
        **setting(job, device),
        "network_size": list(network),
        "seconds": seconds.pop("total"),
        "stages": seconds,
        "repeats": len(timer.steps) * frames,
        "peak_memory": memory.peak(),
        "added_memory": memory.added(),
    }
