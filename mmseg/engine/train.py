"""The training loop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from mmseg import distributed
from mmseg.datasets import build_train_loader
from mmseg.datasets.loader import TrainLoader
from mmseg.engine.checkpoints import Checkpoints, NonFiniteError, resume
from mmseg.engine.interrupts import Interrupted, Interrupts
from mmseg.engine.log import TrainLog, environment, timestamp
from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.engine.seeding import seed_iteration
from mmseg.engine.step import Updater, accumulation_steps, prepare_module, wrap
from mmseg.errors import ConfigError

logger = logging.getLogger("mmseg.engine")


class Trainer:
    """Trains a model for ``runner.max_iters`` iterations, an iteration being one update of the weights.

    Dropout and the like are seeded by (seed, iteration, rank) and samples by (seed, position), and the learning rate
    is a function of the iteration, so that a resumed run equals an uninterrupted one.

    Args:
        cfg: ``runner, optimizer, lr_config, data``; optionally ``optimizer_config, checkpoint_config, evaluation,
            log_config, amp, gradient_accumulation, find_unused_parameters, channels_last, compile``.
        model: takes a batch and the iteration and returns a dict of scalars; the total loss is the sum of those named
            "loss".
        dataset: training data set.
        folder: work folder, which receives checkpoints and logs.
        seed: of everything random.
        evaluate: returns the scores of the model on validation data (other processes than the main one may return
            {}); called every ``evaluation.interval`` iterations and at the end.
        resume_from: checkpoint to go on from.
        meta: further entries of every checkpoint's ``meta``.
        log_name: stem of the JSON log; default the time.

    Raises:
        ConfigError: an entry of `cfg` cannot work.
        CheckpointError: `resume_from` does not fit.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any],
        model: nn.Module,
        dataset: Any,
        folder: str | Path,
        seed: int = 0,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        resume_from: str | Path | None = None,
        meta: Mapping[str, Any] | None = None,
        log_name: str | None = None,
    ) -> None:
        self.cfg, self.dataset, self.folder, self.seed, self.evaluate = cfg, dataset, Path(folder), seed, evaluate
        self.log_name = log_name or timestamp()
        self.max_iters, self.accumulation = max_iterations(cfg), accumulation_steps(cfg)
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        facts = {
            "seed": seed,
            "world_size": self.world_size,
            "samples_per_gpu": cfg["data"]["samples_per_gpu"],
            "gradient_accumulation": self.accumulation,
            "amp": dict(cfg.get("amp") or {}),
        }
        self.clips = facts["samples_per_gpu"] * self.accumulation * self.world_size  # per iteration
        self.model = prepare_module(model, cfg)
        optimizer = build_optimizer(self.model, cfg["optimizer"])
        self.schedule = Schedule(optimizer, cfg["lr_config"], self.max_iters)
        wrapped = wrap(self.model, cfg.get("find_unused_parameters", True))
        self.update = Updater(wrapped, optimizer, distributed.device(), cfg)
        self.start = resume(resume_from, self.model, self.update, facts) if resume_from else 0
        max_keep = (cfg.get("checkpoint_config") or {}).get("max_keep_ckpts", -1)
        self.checkpoints = Checkpoints(
            self.folder, self.model, self.update, {**(meta or {}), **facts}, max_keep, resumed=bool(resume_from)
        )

    def run(self) -> dict[str, float]:
        """Train; returns the scores of the last evaluation.

        Raises:
            WriteError: a checkpoint cannot be written.
            NonFiniteError: a loss is not finite; nothing is saved then.
            Interrupted: after SIGTERM or SIGINT, when the iteration is finished and saved.
        """
        with Interrupts() as self.interrupts, self._open_log() as self.log:
            with self._batches() as batches:
                for iteration in range(self.start, self.max_iters):
                    done = iteration + 1
                    stop = self._iterate(iteration, batches)
                    if stop or done == self.max_iters or self._is_due("checkpoint_config", done):
                        self._save(done)
                    if stop:
                        self._leave(done)
                    if done != self.max_iters and self._is_due("evaluation", done):
                        self._validate(done)
            return self._validate(max(self.start, self.max_iters))

    def _iterate(self, iteration: int, batches: Iterator[Mapping[str, Any]]) -> bool:
        """One update, logged. Returns whether any process was asked to stop."""
        begin = time.perf_counter()
        with distributed.together():  # no forward pass, which exchanges numbers, unless every process has its batch
            micro_batches = [next(batches) for _ in range(self.accumulation)]
        loaded = time.perf_counter()
        self.model.train()
        self.schedule.step(iteration)
        seed_iteration(self.seed, iteration, self.rank)
        values = self.update(micro_batches, iteration)
        # one exchange for all numbers, and for the request to stop, which all processes must obey together
        means = distributed.reduce_mean({**values, "stop": float(self.interrupts.received is not None)})
        stop = means.pop("stop") > 0
        _check_finite(means, iteration + 1)
        lr = self.update.optimizer.param_groups[0]["lr"]
        self.log.iteration(iteration + 1, lr, time.perf_counter() - begin, loaded - begin, means)
        return stop

    def _validate(self, done: int) -> dict[str, float]:
        """Evaluate, log the scores and keep the best weights."""
        if self.evaluate is None:
            return {}
        distributed.broadcast_buffers(self.model)  # what is scored is what is saved
        try:
            with self.interrupts.at_once():
                scores = dict(self.evaluate(self.model))
        except BaseException as reason:
            self._write(done)  # not _save: who knows where the other processes are
            if isinstance(reason, Interrupted):
                self._leave(done)
            raise
        with distributed.together():
            if self.rank == 0:
                self._report(done, scores)
        return scores

    def _report(self, done: int, scores: Mapping[str, Any]) -> None:
        """Log scores and keep the weights if they are the best so far."""
        self.log.validation(done, {name: value for name, value in scores.items() if isinstance(value, float)})
        best = (self.cfg.get("evaluation") or {}).get("save_best")
        if best in scores:
            self.checkpoints.save_best(done, best, scores[best])
        elif best:
            logger.warning("evaluation.save_best=%r is none of the scores: %s", best, ", ".join(scores))

    def _save(self, done: int) -> None:
        """Write a checkpoint in the main process; all processes wait for it, and fail together if it fails."""
        with distributed.together():
            self._write(done)

    def _write(self, done: int) -> None:
        self.checkpoints.save(done, epoch=done * self.clips // len(self.dataset))

    def _is_due(self, section: str, done: int) -> bool:
        interval = (self.cfg.get(section) or {}).get("interval") or 0
        return interval > 0 and done % interval == 0

    def _leave(self, done: int) -> NoReturn:
        signum = self.interrupts.received or signal.SIGTERM
        logger.info("%s: stopped after iteration %d, which is saved", signal.Signals(signum).name, done)
        raise Interrupted(signum)

    def _open_log(self) -> TrainLog:
        device = distributed.device()
        interval = (self.cfg.get("log_config") or {}).get("interval", 50)
        folder = self.folder if self.rank == 0 else None
        log = TrainLog(folder, self.log_name, interval, self.max_iters, self.start, device)
        log.header({"env": environment(device), "seed": self.seed, "start": self.start, "clips": self.clips})
        return log

    def _batches(self) -> TrainLoader:
        """The endless batches of this process from the position where the training starts."""
        data = self.cfg["data"]
        return build_train_loader(
            self.dataset,
            data["samples_per_gpu"],
            data.get("workers_per_gpu", 2),
            self.seed,
            start_iter=self.start * self.accumulation,
            rank=self.rank,
            world_size=self.world_size,
        )


def max_iterations(cfg: Mapping[str, Any]) -> int:
    """``runner.max_iters`` of a config.

    Raises:
        ConfigError: it is missing or not a positive integer.
    """
    max_iters = (cfg.get("runner") or {}).get("max_iters")
    if not isinstance(max_iters, int) or max_iters < 1:
        raise ConfigError(
            f"runner.max_iters = {max_iters!r}",
            "a positive number of iterations",
            "set runner=dict(type='IterBasedRunner', max_iters=...)",
        )
    return max_iters


def _check_finite(values: Mapping[str, float], done: int) -> None:
    wrong = [name for name, value in values.items() if "loss" in name and not math.isfinite(value)]
    if wrong:
        raise NonFiniteError(
            f"iteration {done}: {', '.join(wrong)} is not finite ("
            + ", ".join(f"{name}: {value:.4g}" for name, value in values.items())
            + ")",
            "finite losses",
            "resume from latest.pth with a lower learning rate, with gradient clipping or without amp; the weights of "
            "this iteration are not saved",
        )
