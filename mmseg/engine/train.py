"""The training loop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from mmseg import distributed, sections
from mmseg.datasets import build_train_loader
from mmseg.datasets.loader import TrainLoader
from mmseg.engine.average import AveragedWeights
from mmseg.engine.checkpoints import Checkpoints, check_finite
from mmseg.engine.interrupts import Interrupted, Interrupts
from mmseg.engine.log import TrainLog, UnreadNumbers, check_boards, environment, timestamp
from mmseg.engine.lr import Schedule
from mmseg.engine.monitor import Patience, averaging_and_stopping, find_score, undefined
from mmseg.engine.optim import build_optimizer, tell_of_idle_keys
from mmseg.engine.resuming import resume
from mmseg.engine.seeding import seed_iteration
from mmseg.engine.step import Updater, accumulation_steps, prepare_module, train_only, wrap
from mmseg.structures import Progress

logger = logging.getLogger("mmseg.engine")


class Trainer:
    """Trains a model for ``runner.max_iters`` iterations, an iteration being one update of the weights.

    Dropout and the like are seeded by (seed, iteration, rank) and samples by (seed, position), and the learning rate
    is a function of the iteration, so that a resumed run equals an uninterrupted one.

    Args:
        cfg: ``runner, optimizer, lr_config, data``; optionally ``optimizer_config, checkpoint_config, evaluation,
            log_config, ema, early_stopping, custom_hooks, amp, gradient_accumulation, find_unused_parameters,
            channels_last, compile``.
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
        score_names: names of what `evaluate` returns, the most important one first.
        why_undefined: says of a score's name why it can be undefined.
        finetune_trains: part of the names of the parameters that are trained; None trains all.

    Attributes:
        about: entries of the first line of the JSON log: what is trained on what.
        pictures: gives those of the last evaluation, for TensorBoard, by name.

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
        score_names: Sequence[str] = (),
        why_undefined: Callable[[str], str] = lambda name: "",
        finetune_trains: str | None = None,
    ) -> None:
        self.dataset, self.folder, self.seed, self.evaluate = dataset, Path(folder), seed, evaluate
        self.log_name, self.why_undefined = log_name or timestamp(), why_undefined
        self.about: Mapping[str, Any] = {}
        self.pictures: Callable[[], Mapping[str, Any]] = dict
        self.max_iters, self.accumulation = sections.read("runner", cfg["runner"]).max_iters, accumulation_steps(cfg)
        self.data = sections.read("data", cfg["data"])
        self.saving = sections.read("checkpoint_config", cfg.get("checkpoint_config") or {})
        self.evaluation = sections.read("evaluation", cfg.get("evaluation") or {})
        self.logging = sections.read("log_config", cfg.get("log_config") or {})
        check_boards(self.logging)
        averaging, stopping = averaging_and_stopping(cfg)
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        facts = {
            "seed": seed,
            "world_size": self.world_size,
            "samples_per_gpu": self.data.samples_per_gpu,
            "gradient_accumulation": self.accumulation,
            "amp": dict(cfg.get("amp") or {}),
            "finetune_trains": finetune_trains,
        }
        self.clips = self.data.samples_per_gpu * self.accumulation * self.world_size  # per iteration
        train_only(model, finetune_trains)
        self.model = prepare_module(model, cfg)
        optimizer = build_optimizer(self.model, cfg["optimizer"])
        self.schedule = Schedule(optimizer, cfg["lr_config"], self.max_iters)
        tell_of_idle_keys(self.model, cfg["optimizer"])
        self.schedule.tell_of_late_changes()
        wrapped = wrap(self.model, cfg.get("find_unused_parameters", True))
        self.update = Updater(wrapped, optimizer, distributed.device(), cfg)
        self.average = AveragedWeights(self.model, averaging) if averaging else None
        self.patience = Patience(stopping) if stopping else None
        self._find_scores(score_names)
        self.start = 0
        if resume_from:
            self.start = resume(resume_from, self.model, self.update, facts, self.average, self.patience)
        self.checkpoints = Checkpoints(
            self.folder,
            self.model,
            self.update,
            {**(meta or {}), **facts},
            self.saving.max_keep_ckpts,
            resumed=bool(resume_from),
            average=self.average,
            patience=self.patience,
            run_name=self.saving.run_name,
            background=self.saving.background,
        )
        self.unread, self.reads_at_once = UnreadNumbers(), distributed.device().type == "cpu"

    def _find_scores(self, known: Sequence[str]) -> None:
        """Refuse names of scores that the evaluation does not have; `known` is empty if it does not tell."""
        best, stopping = self.evaluation.save_best, self.patience and self.patience.section.monitor
        for name, place in ((best, "evaluation.save_best"), (stopping, "early_stopping.monitor")):
            if name is not None and self.evaluate is None:
                logger.warning("%s has no effect: this training has no validation", place)
            elif name is not None and known:
                find_score(name, known, place)
        before_the_end = (self.max_iters - 1) // self.evaluation.interval if (self.evaluation.interval or 0) > 0 else 0
        if self.patience and self.evaluate is not None and before_the_end <= self.patience.section.patience:
            logger.warning(
                "early_stopping (EarlyStoppingHook) can hardly end this training: %d evaluations before its end, "
                "patience is %d; lower evaluation.interval",
                before_the_end,
                self.patience.section.patience,
            )

    def run(self) -> dict[str, float]:
        """Train; returns the scores of the last evaluation.

        Raises:
            WriteError: a checkpoint cannot be written; one in the background is told of at the next iteration.
            NonFiniteError: a loss or a weight is not finite; nothing is saved then.
            Interrupted: after SIGTERM or SIGINT, when the iteration is finished and saved.
        """
        last = max(self.start, self.max_iters)
        if self.patience and self.evaluate is not None and self.patience.is_exhausted:
            logger.info("early stopping had ended this run: nothing is trained (raise its patience to go on)")
            last = self.start
        with Interrupts() as self.interrupts, self._open_log() as self.log, self.checkpoints.written_at_the_end():
            with self._batches() as batches:
                for iteration in range(self.start, last):
                    done = iteration + 1
                    if not self._iterate(iteration, batches):
                        self._leave(iteration)
                    if done == self.max_iters or _is_due(self.saving, done):
                        self._save(done)
                    if done != self.max_iters and _is_due(self.evaluation, done):
                        scores = self._validate(done)
                        if self._is_enough(done, scores):
                            return scores
            if distributed.any_of(self.interrupts.received is not None):
                self._leave(last)
            return self._validate(last)

    def rehearse(self) -> dict[str, float]:
        """One iteration, one checkpoint and one evaluation, and no log. Returns and raises what :meth:`run` does."""
        section = self.logging.model_copy(update={"interval": 1})
        log = TrainLog(None, self.log_name, section, self.max_iters, self.start, distributed.device())
        with Interrupts() as self.interrupts, log as self.log, self.checkpoints.written_at_the_end():
            with self._batches() as batches:
                if not self._iterate(self.start, batches):
                    raise Interrupted(self.interrupts.received or signal.SIGTERM)
            self._save(self.start + 1)
            begin = time.perf_counter()
            scores = self._validate(self.start + 1)
        size = sum(file.stat().st_size for file in self.folder.glob("iter_*.pth"))
        text = "dry run: all is well, nothing of it stays; a checkpoint has %.1f MiB, validation took %.1f s"
        logger.info(text, size / 2**20, time.perf_counter() - begin)
        return scores

    def _iterate(self, iteration: int, batches: Iterator[Mapping[str, Any]]) -> bool:
        """One update, logged. False, and no update, if any process was asked to stop."""
        begin, done = time.perf_counter(), iteration + 1
        micro_batches = self._next(batches, iteration)
        if not micro_batches:
            return False
        loaded = time.perf_counter()
        self.model.train()
        self.schedule.step(iteration)
        seed_iteration(self.seed, iteration, self.rank)
        self.unread.add(done, self.update(micro_batches, iteration))
        if self.average:
            self.checkpoints.settle()
            self.average.update(iteration)
        # a GPU is not kept waiting for numbers that nobody sees
        if self.reads_at_once or self.log.is_due(done):
            self._read()
        lr = self.update.optimizer.param_groups[0]["lr"]
        self.log.iteration(done, lr, time.perf_counter() - begin, loaded - begin)
        return True

    def _next(self, batches: Iterator[Mapping[str, Any]], iteration: int) -> list[Mapping[str, Any]]:
        """The batches of an update; none if any process was asked to stop.

        The forward pass exchanges numbers between the processes. All enter it, or none does: where one of them cannot
        have its batches, all raise, and what has been trained is saved; they do so as well where a checkpoint could not
        be written meanwhile, and nothing is saved then.
        """
        micro_batches, failure = [], self.checkpoints.failure
        try:
            if failure is None and self.interrupts.received is None:
                micro_batches = [next(batches) for _ in range(self.accumulation)]
        except Exception as error:
            failure = error
        if distributed.any_of(not micro_batches):
            try:
                distributed.agree(failure)
            except Exception:
                if iteration > self.start:
                    self._save(iteration, wait=True)
                raise
            return []
        return micro_batches

    def _read(self) -> None:
        """Wait for the numbers of all iterations so far; log them, and stop if a loss is not finite."""
        for done, numbers in self.unread.read():
            check_finite(numbers, done)
            self.log.numbers(numbers)

    def _validate(self, done: int) -> dict[str, float]:
        """Evaluate, log the scores and keep the best weights."""
        if self.evaluate is None:
            return {}
        self._read()
        distributed.broadcast_buffers(self.model)  # what is scored is what is saved
        try:
            with self.interrupts.at_once(), self.average.applied() if self.average else nullcontext():
                scores = dict(self.evaluate(self.model))
        except BaseException as reason:
            self._write(done, wait=True)  # not _save: who knows where the other processes are
            if isinstance(reason, Interrupted):
                self._tell_signal(done)
            raise
        with distributed.together():
            if self.rank == 0:
                self._report(done, {name: value for name, value in scores.items() if isinstance(value, float)})
        return scores

    def _report(self, done: int, scores: Mapping[str, float]) -> None:
        """Log scores and keep the weights if they are the best so far."""
        self.log.validation(done, scores)
        self.log.pictures(done, self.pictures())
        best = self.evaluation.save_best
        if best is None:
            return
        best = find_score(best, list(scores), "evaluation.save_best")
        if math.isnan(scores[best]):
            what = undefined(best, scores, self.why_undefined(best))
            logger.warning("evaluation.save_best: nothing saved, %s", what)
        else:
            self.checkpoints.save_best(done, best, scores[best])

    def _is_enough(self, done: int, scores: Mapping[str, float]) -> bool:
        """Whether no better scores are to be expected, as ``early_stopping`` has it; saved if so."""
        if self.patience is None:
            return False
        with distributed.together():
            enough = self.rank == 0 and self.patience.exhausted(scores)
        if _is_due(self.saving, done):
            self.checkpoints.saved = None  # written again, with what this evaluation adds to the count
            self._save(done)
        if not distributed.any_of(enough):
            return False
        self._save(done)
        section = self.patience.section
        logger.info(
            "early stopping after iteration %d: %d evaluations without a better %s than %s",
            done,
            section.patience,
            self.patience.score,
            self.patience.best,
        )
        return True

    def _save(self, done: int, wait: bool = False) -> None:
        """Write a checkpoint in the main process; all processes fail together if it, or the one before it, fails.

        Args:
            done: number of finished iterations.
            wait: until it is on the disk; else it is written while the training goes on.
        """
        self._read()
        with distributed.together():
            self._write(done, wait)

    def _write(self, done: int, wait: bool) -> None:
        self.checkpoints.save(done, wait, epoch=done * self.clips // len(self.dataset))

    def _leave(self, done: int) -> NoReturn:
        """Save and end, since a process was asked to stop."""
        if done > self.start:
            self._save(done, wait=True)
        self._tell_signal(done)
        raise Interrupted(self.interrupts.received or signal.SIGTERM)

    def _tell_signal(self, done: int) -> None:
        name = signal.Signals(self.interrupts.received or signal.SIGTERM).name
        logger.info("%s: stopped after iteration %d, which is saved", name, done)

    def _open_log(self) -> TrainLog:
        device = distributed.device()
        folder = self.folder if self.rank == 0 else None
        with distributed.together():
            log = TrainLog(folder, self.log_name, self.logging, self.max_iters, self.start, device)
        log.header(
            {"env": environment(device), "seed": self.seed, "start": self.start, "clips": self.clips, **self.about}
        )
        return log

    def _batches(self) -> TrainLoader:
        """The endless batches of this process from the position where the training starts."""
        return build_train_loader(
            self.dataset,
            self.data.samples_per_gpu,
            self.data.workers_per_gpu,
            self.seed,
            start_iter=self.start * self.accumulation,
            rank=self.rank,
            world_size=self.world_size,
            progress=partial(Progress.at, num_items=len(self.dataset), batch_size=self.clips, max_iters=self.max_iters),
        )


def _is_due(section: sections.Checkpoints | sections.Evaluation, done: int) -> bool:
    interval = section.interval or 0
    return interval > 0 and done % interval == 0
