"""What a training run writes about itself: text for people, JSON lines for programs, TensorBoard for pictures."""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import platform
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmseg.errors import WriteError
from mmseg.files import append_text, write_error
from mmseg.version import __version__

logger = logging.getLogger("mmseg.engine")

_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


def timestamp() -> str:
    """Local time as it appears in the names of log files."""
    return time.strftime("%Y%m%d_%H%M%S")


def setup_logging(text_file: Path | None = None, is_main: bool = True, level: int | str = "INFO") -> None:
    """Send the messages of the package to standard output and to `text_file`; other processes report only errors."""
    package = logging.getLogger("mmseg")
    close_logging()
    package.setLevel(level if is_main else "ERROR")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if text_file is not None and is_main:
        handlers.append(TextFile(text_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        package.addHandler(handler)
    package.propagate = False


class TextFile(logging.Handler):
    """Appends to a text file; says once, on standard error, why that fails, and goes on trying."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.failed = path, False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            append_text(self.path, self.format(record) + "\n")
        except WriteError as error:
            if not self.failed:
                sys.stderr.write(f"the log is incomplete from here on: {error}\n")
            self.failed = True
        except Exception:
            self.handleError(record)


def close_logging() -> None:
    """Undo :func:`setup_logging`."""
    package = logging.getLogger("mmseg")
    for handler in list(package.handlers):
        package.removeHandler(handler)
        handler.close()
    package.propagate = True


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware that a result may depend on."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "mmseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device} ({hardware}), {torch.get_num_threads()} threads, {os.cpu_count()} cores",
    }


class TrainLog:
    """Collects the numbers of each iteration and writes their means once per interval. A context manager.

    Args:
        folder: work folder; None (processes other than the main one) writes nothing.
        name: stem of ``<name>.log.json``.
        interval: iterations per line.
        max_iters: number of iterations of the whole run.
        start: iterations that were finished before.
        device: its peak memory is reported if it is a GPU.
        tensorboard: also write events to ``tf_logs/``.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        interval: int,
        max_iters: int,
        start: int = 0,
        device: torch.device | None = None,
        tensorboard: bool = True,
    ) -> None:
        self.interval, self.max_iters, self.start, self.device = interval, max_iters, start, device
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        self._seconds = 0.0
        self._failed = False  # to write to it
        self._json = folder / f"{name}.log.json" if folder else None
        self._writer = _summary_writer(folder / "tf_logs", start) if folder and tensorboard else None

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer:
            try:
                self._writer.close()
            except OSError as error:
                self._stop_events(error)

    def header(self, entries: Mapping[str, Any]) -> None:
        """The first JSON line: what run this is."""
        self._write_json(entries)

    def iteration(self, done: int, lr: float, seconds: float, data_seconds: float, values: Mapping[str, float]) -> None:
        """Take in the numbers of one iteration, `done` being the number of finished ones.

        Args:
            lr: learning rate of the first parameter group.
            seconds: wall time of the iteration, of which `data_seconds` were spent waiting for data.
            values: losses and the like.
        """
        self._seconds += seconds
        self._count += 1
        for name, value in {"time": seconds, "data_time": data_seconds, **values}.items():
            self._sums[name] += value
        if done % self.interval == 0 or done == self.max_iters:
            self._write_interval(done, lr)

    def _write_interval(self, done: int, lr: float) -> None:
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums.clear()
        self._count = 0
        times = {name: means.pop(name) for name in ("time", "data_time")}
        memory = {}
        if self.device is not None and self.device.type == "cuda":
            memory = {"memory": torch.cuda.max_memory_allocated(self.device) // 2**20}  # MB
        left = self._seconds / (done - self.start) * (self.max_iters - done)
        fields = [f"lr: {lr:.3e}", f"eta: {datetime.timedelta(seconds=int(left))}"]
        fields += [f"{name}: {value:.3f}" for name, value in times.items()]
        fields += [f"{name}: {value}" for name, value in memory.items()]
        fields += [f"{name}: {value:.4f}" for name, value in means.items()]
        logger.info("Iter [%d/%d] %s", done, self.max_iters, ", ".join(fields))
        self._write_json({"mode": "train", "iter": done, "lr": lr, **times, **memory, **means})
        self._write_scalars(
            done, {"learning_rate": lr, **{f"train/{name}": v for name, v in {**times, **means}.items()}}
        )

    def validation(self, done: int, values: Mapping[str, float]) -> None:
        """Report the scores that were reached after `done` iterations."""
        logger.info("Iter(val) [%d/%d] %s", done, self.max_iters, ", ".join(f"{k}: {v:.4f}" for k, v in values.items()))
        self._write_json({"mode": "val", "iter": done, **values})
        self._write_scalars(done, {f"val/{name}": value for name, value in values.items()})

    def _write_json(self, entries: Mapping[str, Any]) -> None:
        if self._json:
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entries.items()}
            try:
                append_text(self._json, json.dumps(finite) + "\n")
            except WriteError as error:
                if not self._failed:
                    logger.warning("the log is incomplete from here on: %s", error)
                self._failed = True

    def _write_scalars(self, done: int, scalars: Mapping[str, float]) -> None:
        if self._writer:
            try:
                for name, value in scalars.items():
                    self._writer.add_scalar(name, value, done)
            except OSError as error:  # of an earlier call: its thread writes later
                self._stop_events(error)

    def _stop_events(self, error: OSError) -> None:
        logger.warning("no more TensorBoard events: %s", write_error(self._writer.log_dir, error))
        self._writer = None


def _summary_writer(folder: Path, start: int) -> Any:
    """TensorBoard's writer; events after `start` of an earlier run that ended later are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        logger.warning("no TensorBoard log: %s (pip install tensorboard)", error)
        return None
    threading.excepthook = _without_disk_errors_of_tensorboard
    try:
        return SummaryWriter(str(folder), purge_step=start + 1)
    except OSError as error:
        logger.warning("no TensorBoard log: %s", write_error(folder, error))
        return None


def _without_disk_errors_of_tensorboard(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread keeps the error of a full disk for the next call, and prints a traceback as well."""
    of_tensorboard = type(failure.thread).__module__.startswith("tensorboard")
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        threading.__excepthook__(failure)
