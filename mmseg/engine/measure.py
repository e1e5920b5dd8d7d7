"""Stop watch, memory gauge and processes of the benchmark."""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmseg.errors import DataError
from mmseg.parent import end_with_parent
from mmseg.worker_pool import deaths_told

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_own_process(measure: Callable[[Any], list[Any]], *jobs: Any) -> list[Any]:
    """The rows of ``measure(job)`` for all jobs, each in a fresh process, all of them at the same time.

    Raises:
        SegError: what `measure` raises.
        DataError: a process was killed, or the memory of the GPU does not suffice.
    """
    context, parent = multiprocessing.get_context("spawn"), (os.getpid(),)
    advice = "measure something smaller, or free some memory"
    try:
        with deaths_told(advice), ProcessPoolExecutor(len(jobs), context, end_with_parent, parent) as pool:
            return [row for rows in pool.map(measure, jobs) for row in rows]
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise DataError(f"the memory of the GPU does not suffice ({reason})", "enough of it", advice) from error


class StageTimer:
    """Times named parts of a repeated step.

    Args:
        device: its queue is emptied before the clock is read.
        cpu_time: seconds that the CPU works for this process, all threads together, instead of those that pass.
    """

    def __init__(self, device: torch.device, cpu_time: bool = False) -> None:
        self.device, self.cpu_time = device, cpu_time
        self.steps: list[dict[str, float]] = []  # seconds per stage, one dict per step; "total" is the whole step

    def clear(self) -> None:
        """Forget the steps so far (a warm-up)."""
        self.steps = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step; stages inside are booked to it."""
        self.steps.append({})
        with self.stage("total"):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Book the time inside to stage `name` of the current step."""
        start = self._now()
        yield
        if self.steps:
            self.steps[-1][name] = self.steps[-1].get(name, 0.0) + self._now() - start

    @contextmanager
    def watch(self, *calls: tuple[Any, str, str]) -> Iterator[None]:
        """Inside, calls of ``owner.attribute`` are booked to a stage; `calls` are (owner, attribute, stage)."""
        for owner, attribute, name in calls:
            setattr(owner, attribute, self._timed(getattr(owner, attribute), name))
        try:
            yield
        finally:
            for owner, attribute, _ in calls:
                original = getattr(owner, attribute).__wrapped__
                if getattr(type(owner), attribute, None) is not None:
                    delattr(owner, attribute)  # the method of the class shows again
                else:
                    setattr(owner, attribute, original)

    def medians(self) -> dict[str, float]:
        """Median seconds of every stage, and of what is in no stage as ``other``."""
        names = list(dict.fromkeys(name for step in self.steps for name in step if name != "total"))
        result = {name: statistics.median(step.get(name, 0.0) for step in self.steps) for name in names}
        other = [step["total"] - sum(step.get(name, 0.0) for name in names) for step in self.steps]
        total = statistics.median(step["total"] for step in self.steps)
        return {**result, "other": statistics.median(other), "total": total}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.cpu_time else time.perf_counter()

    def _timed(self, function: Any, name: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        timed.__wrapped__ = function
        return timed


class PeakMemory:
    """The most memory in use since :meth:`start`: of the GPU's allocator, or of the whole process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def start(self) -> None:
        """Begin to watch."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        if _CLEAR.exists():
            _CLEAR.write_text("5")  # Linux: the peak starts again from the present size
        self.before = resident_bytes()

    def peak(self) -> int:
        """Bytes at the highest point, weights and program included."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") or _max_resident()

    def added(self) -> int:
        """Bytes at the highest point beyond what was in use at the start."""
        return max(self.peak() - self.before, 0)


def resident_bytes() -> int:
    """Memory of this process in bytes; its maximum so far where the system does not tell the present value."""
    return _status("VmRSS") or _max_resident()


def used_bytes(device: torch.device) -> int:
    """Memory in use now: of the GPU's allocator, or of the whole process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()


def _status(key: str) -> int:
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _max_resident() -> int:
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024


def device_name(device: torch.device) -> str:
    """The device in words, with the number of threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
