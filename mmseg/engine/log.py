"""What a training run writes about itself: text for people, JSON lines for programs, curves for TensorBoard and W&B."""

from __future__ import annotations

import datetime
import importlib.util
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

import numpy as np
import torch
from torch import Tensor

from mmseg import distributed, sections
from mmseg.errors import ConfigError, WriteError
from mmseg.files import append_text, write_error
from mmseg.models.cpu.kernels.library import library
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
    kernels = {"kernels": "compiled" if library() else "none"} if device.type == "cpu" else {}
    return {
        "mmseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device} ({hardware}), {torch.get_num_threads()} threads, {os.cpu_count()} cores",
        **kernels,
    }


class UnreadNumbers:
    """Scalars of iterations, which stay on their device until somebody reads them: to read is to wait for a GPU."""

    def __init__(self) -> None:
        self._iterations: list[tuple[int, Mapping[str, Tensor]]] = []

    def add(self, done: int, values: Mapping[str, Tensor]) -> None:
        """Keep the scalars of one iteration, `done` being the number of finished ones."""
        self._iterations.append((done, values))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """(done, numbers) of every iteration since the last reading, means over the processes; all of them must read.

        One transfer from the device and one message, whatever the number of entries.
        """
        scalars = [value.detach().float().reshape(()) for _, values in self._iterations for value in values.values()]
        numbers = iter(distributed.mean(torch.stack(scalars)).tolist() if scalars else ())
        read = [(done, {name: next(numbers) for name in values}) for done, values in self._iterations]
        self._iterations.clear()
        return read


class TrainLog:
    """Collects the numbers of each iteration and writes their means once per interval. A context manager.

    Args:
        folder: work folder; None (processes other than the main one) writes nothing.
        name: stem of ``<name>.log.json``.
        section: ``log_config``: iterations per line, and the hooks for TensorBoard (``tf_logs/``) and W&B.
        max_iters: number of iterations of the whole run.
        start: iterations that were finished before.
        device: its peak memory is reported if it is a GPU.

    Raises:
        ConfigError: W&B is asked for and cannot start.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        section: sections.Log,
        max_iters: int,
        start: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.interval, self.max_iters, self.start, self.device = section.interval, max_iters, start, device
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._seconds = 0.0
        self._failed = False  # to write to it
        self._json = folder / f"{name}.log.json" if folder else None
        self._boards = [_board(hook, folder, start) for hook in section.hooks] if folder else []

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *exception: object) -> None:
        for board in filter(None, self._boards):
            board.close()

    def header(self, entries: Mapping[str, Any]) -> None:
        """The first JSON line: what run this is."""
        self._write_json(entries)

    def numbers(self, values: Mapping[str, float]) -> None:
        """Take in the losses and the like of one iteration, at any time before its line is written."""
        for name, value in values.items():
            self._sums[name].append(value)

    def iteration(self, done: int, lr: float, seconds: float, data_seconds: float) -> None:
        """An iteration has ended, `done` being the number of finished ones; writes a line if one is due.

        Args:
            lr: learning rate of the first parameter group.
            seconds: wall time of the iteration, of which `data_seconds` were spent waiting for data.
        """
        self._seconds += seconds
        self.numbers({"time": seconds, "data_time": data_seconds})
        if self.is_due(done):
            self._write_interval(done, lr)

    def is_due(self, done: int) -> bool:
        """Whether a line is written after `done` iterations."""
        return done % self.interval == 0 or done == self.max_iters

    def _write_interval(self, done: int, lr: float) -> None:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums.clear()
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
        """Report the scores that were reached after `done` iterations; those of classes have a point in their names."""
        text = ", ".join(f"{name}: {value:.4f}" for name, value in values.items() if "." not in name)
        logger.info("Iter(val) [%d/%d] %s", done, self.max_iters, text)
        self._write_json({"mode": "val", "iter": done, **values})
        self._write_scalars(done, {f"val/{name}": value for name, value in values.items()})

    def pictures(self, done: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Show pictures (H, W, 3) uint8 BGR, by name, that were made after `done` iterations."""
        for board in filter(None, self._boards):
            for name, picture in pictures.items():
                board.show(done, name, picture[..., ::-1])

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
        for board in filter(None, self._boards):
            board.write(done, scalars)


# --- where curves are drawn -------------------------------------------------------------------------------------------


def check_boards(section: sections.Log) -> None:
    """Raise ConfigError if a hook of ``log_config`` needs a package that is not installed."""
    for hook in section.hooks:
        if isinstance(hook, sections.WandbLoggerHook) and importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "log_config.hooks: WandbLoggerHook without the package wandb",
                "wandb installed",
                "pip install wandb (no requirement of this package), or remove the hook",
            )


def _board(hook: sections.LoggerHook, folder: Path, start: int) -> TensorBoard | Wandb | None:
    if isinstance(hook, sections.TensorboardLoggerHook):
        return TensorBoard(folder / "tf_logs", start)
    return Wandb(folder, hook.init_kwargs or {}) if isinstance(hook, sections.WandbLoggerHook) else None


class Wandb:
    """Curves on Weights & Biases.

    Args:
        folder: where it keeps its files.
        init_kwargs: of ``wandb.init``.

    Raises:
        ConfigError: it cannot start.
    """

    def __init__(self, folder: Path, init_kwargs: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(**{"dir": str(folder), **init_kwargs})
        except Exception as error:  # it has many
            raise ConfigError(
                f"W&B cannot start: {type(error).__name__}: {error}",
                "an account, or WANDB_MODE=offline",
                "run `wandb login`, set WANDB_MODE=offline, or remove the WandbLoggerHook",
            ) from error

    def write(self, done: int, scalars: Mapping[str, float]) -> None:
        """The numbers that were reached after `done` iterations."""
        self._run.log(dict(scalars), step=done)

    def show(self, done: int, name: str, picture: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB."""
        import wandb

        self._run.log({name: wandb.Image(picture)}, step=done)

    def close(self) -> None:
        """Finish what is being sent."""
        self._run.finish()


class TensorBoard:
    """Curves in event files. When they cannot be written, the log says so once and the training goes on.

    Args:
        folder: for the files.
        start: events after this iteration of an earlier run that ended later are hidden.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            logger.warning("no TensorBoard log: %s (pip install tensorboard)", error)
            return
        threading.excepthook = _without_disk_errors_of_tensorboard
        try:
            self._writer = SummaryWriter(str(folder), purge_step=start + 1)
        except OSError as error:
            logger.warning("no TensorBoard log: %s", write_error(folder, error))

    def write(self, done: int, scalars: Mapping[str, float]) -> None:
        """The numbers that were reached after `done` iterations."""
        for name, value in scalars.items():
            self._add("add_scalar", name, value, done)

    def show(self, done: int, name: str, picture: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB."""
        self._add("add_image", name, np.ascontiguousarray(picture), done, dataformats="HWC")

    def _add(self, method: str, *arguments: Any, **more: Any) -> None:
        if self._writer:
            try:
                getattr(self._writer, method)(*arguments, **more)
            except OSError as error:  # of an earlier call: its thread writes later
                self._stop(error)

    def close(self) -> None:
        """Write what is left."""
        if self._writer:
            try:
                self._writer.close()
            except OSError as error:
                self._stop(error)

    def _stop(self, error: OSError) -> None:
        logger.warning("no more TensorBoard events: %s", write_error(self._writer.log_dir, error))
        self._writer = None


def _without_disk_errors_of_tensorboard(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread keeps the error of a full disk for the next call, and prints a traceback as well."""
    of_tensorboard = type(failure.thread).__module__.startswith("tensorboard")
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        threading.__excepthook__(failure)
