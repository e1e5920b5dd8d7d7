"""The checkpoints of a run: written so that no crash can damage one, and kept as long as asked.

A checkpoint is ``dict(meta, state_dict, optimizer, ...)``. ``meta['iter']`` is the number of finished iterations. How a
training goes on from one: :mod:`mmseg.engine.resuming`.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmseg import distributed
from mmseg.engine.average import TRAINED, AveragedWeights
from mmseg.engine.background import BackgroundWriter, on_cpu
from mmseg.engine.monitor import is_better
from mmseg.errors import CheckpointError, SegError
from mmseg.files import NewFile, sync_folder, temporary_name
from mmseg.version import WRITER, __version__
from mmseg.weights import read_checkpoint, write_weights_file

if TYPE_CHECKING:
    from mmseg.engine.monitor import Patience
    from mmseg.engine.step import Updater

logger = logging.getLogger("mmseg.engine")

LATEST = "latest.pth"
_ADVICE = (
    f"lower checkpoint_config.max_keep_ckpts or choose another --work-dir, then resume from {LATEST}; earlier "
    "checkpoints are intact"
)


class NonFiniteError(SegError):
    """A loss or a weight has become infinite or undefined; nothing has been saved since."""


def check_finite(values: Mapping[str, float], done: int) -> None:
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


# --- files ------------------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that `path` holds either its old content or all of the new one, whatever happens.

    Raises:
        WriteError: the file cannot be written (full disk, no permission); an old file at `path` is intact.
    """
    write_weights_file(path, dict(state), _ADVICE)


def point_latest(path: str | Path, name: str = LATEST) -> None:
    """Let the file `name` beside `path` lead to it: a relative link, or a copy where links cannot be made.

    The old one is replaced in one step, so that it leads to a complete checkpoint at every moment.

    Raises:
        WriteError: neither can be made.
    """
    path = Path(path)
    latest = path.with_name(name)
    temporary = temporary_name(latest)
    try:
        os.symlink(path.name, temporary)
        os.replace(temporary, latest)
    except OSError:
        temporary.unlink(missing_ok=True)
        with NewFile(latest, _ADVICE) as file, open(path, "rb") as source:
            shutil.copyfileobj(source, file)
    sync_folder(path.parent)


def iteration_checkpoints(folder: str | Path) -> list[Path]:
    """The ``iter_N.pth`` files of a folder, lowest N first."""
    numbered = [(re.fullmatch(r"iter_(\d+)\.pth", file.name), file) for file in Path(folder).glob("iter_*.pth")]
    return [file for _, file in sorted((int(match[1]), file) for match, file in numbered if match)]


def newest_first(folder: str | Path) -> list[Path]:
    """The checkpoints of a work folder from which a run can go on, in the order in which to try them.

    What latest.pth leads to comes first, by the name latest.pth, then those before it. Those with higher numbers, which
    an earlier run may have left, come last.
    """
    latest, numbered = Path(folder) / LATEST, iteration_checkpoints(folder)[::-1]
    if not latest.is_file():
        return numbered
    names = [file.name for file in numbered]
    target = latest.resolve().name
    place = names.index(target) if target in names else 0
    return [latest, *(file for file in (*numbered[place:], *numbered[:place]) if file.name != target)]


def prune(folder: str | Path, keep: int) -> None:
    """Remove all but the `keep` newest ``iter_N.pth``; a value below 1 keeps all. What latest.pth leads to stays."""
    if keep < 1:
        return
    kept = (Path(folder) / LATEST).resolve()
    for file in iteration_checkpoints(folder)[:-keep]:
        if file.resolve() != kept:
            file.unlink(missing_ok=True)


# --- what a run writes ------------------------------------------------------------------------------------------------


class Checkpoints:
    """Writes ``iter_N.pth``, ``latest.pth`` and ``best_<score>_iter_N.pth`` in the main process.

    Args:
        folder: work folder.
        model: the unwrapped model.
        updater: holds the optimiser and the loss scaler.
        meta: what every checkpoint says about the run (seed, config text, CLASSES ...).
        max_keep: how many ``iter_N.pth`` stay; below 1 all do.
        resumed: whether the best checkpoint in `folder` is an earlier part of this run.
        average: of the weights; it is what the checkpoints have as weights, with those that are trained beside it.
        patience: counts evaluations; the count is saved.
        run_name: R for ``R_N.pth``, the weights alone, and ``R_checkpoint.pth``, which leads to the newest checkpoint:
            the files of GSFM's training script.
        background: write while the training goes on, from a copy in main memory that is as large as the file; what
            fails is raised by the next call.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        updater: Updater,
        meta: Mapping[str, Any],
        max_keep: int = -1,
        resumed: bool = False,
        average: AveragedWeights | None = None,
        patience: Patience | None = None,
        run_name: str | None = None,
        background: bool = True,
    ) -> None:
        self.run_name = run_name
        self.folder, self.model, self.updater, self.meta, self.max_keep = folder, model, updater, meta, max_keep
        self.resumed, self.average, self.patience = resumed, average, patience
        self.saved: int | None = None  # iteration of the newest checkpoint of this run
        self._best: tuple[float, Path] | None = None
        self._writer = BackgroundWriter() if background and distributed.is_main() else None
        if self._writer is not None:
            updater.optimizer.register_step_pre_hook(lambda *_: self.settle())

    @property
    def failure(self) -> Exception | None:
        """Why a write in the background has failed, if one has."""
        return self._writer and self._writer.failure

    def save(self, done: int, wait: bool = False, **meta: Any) -> None:
        """Write the checkpoint of `done` finished iterations, unless it has been written already.

        Args:
            done: number of finished iterations.
            wait: until it is on the disk, as it is without `background`.
            meta: further entries of its ``meta``.

        Raises:
            WriteError: it, or the one before, cannot be written.
            NonFiniteError: a weight is not a finite number.
        """
        if not distributed.is_main():
            return
        if self.saved != done:
            optimizer, scaler = self.updater.optimizer, self.updater.scaler
            if self.patience:
                meta["early_stopping"] = self.patience.state_dict()
            state = {**self._weights(done, **meta), "optimizer": optimizer.state_dict()}
            if self.average:
                state[TRAINED] = {name: p.detach() for name, p in self.model.named_parameters()}
            if scaler.is_enabled():
                state["scaler"] = scaler.state_dict()
            self._write(state, partial(self._write_checkpoint, done), wait)
            self.saved = done
        if wait:
            self.wait()

    def _write_checkpoint(self, done: int, state: Mapping[str, Any]) -> None:
        """Each step leaves a folder from which a run can go on: a file appears whole, and only then do links to it."""
        path = self.folder / f"iter_{done}.pth"
        self._check_finite(state)
        save_checkpoint(path, state)
        point_latest(path)
        if self.run_name:
            save_checkpoint(self.folder / f"{self.run_name}_{done}.pth", state["state_dict"])
            point_latest(path, f"{self.run_name}_checkpoint.pth")
        prune(self.folder, self.max_keep)
        logger.info("saved %s", path)

    def save_best(self, done: int, score: str, value: float) -> None:
        """Write the weights to ``best_<score>_iter_<done>.pth`` if `value` is better than ever; drop the one before.

        Args:
            done: number of finished iterations.
            score: its name.
            value: not nan.

        Raises:
            see :meth:`save`.
        """
        if not distributed.is_main():
            return
        best = self._best or (self._best_before(score) if self.resumed else None)
        if best and not is_better(score, value, best[0]):
            return
        path = self.folder / f"{_best_name(score)}_iter_{done}.pth"

        def write(state: Mapping[str, Any]) -> None:
            self._check_finite(state)
            save_checkpoint(path, state)
            if best and best[1] != path:
                best[1].unlink(missing_ok=True)
            logger.info("best %s so far: %.4f, saved %s", score, value, path)

        self._write(self._weights(done, score={score: value}), write)
        self._best = (value, path)

    def _write(self, state: Mapping[str, Any], write: Callable[[Mapping[str, Any]], None], wait: bool = False) -> None:
        """Call `write` with a state that stays as it is now; here and now where the training is not to go on."""
        if self._writer is None or wait:
            self.wait()
            write(on_cpu(state))
        else:
            self._writer.begin(state, write)

    def settle(self) -> None:
        """Wait until what is being saved is copied: from then on weights, moments and averages may change.

        A step of the optimiser does; a loss scaler leaves steps out, and what changes then has to ask by itself.
        """
        if self._writer is not None:
            self._writer.settle()

    def wait(self) -> None:
        """Wait until all that has been saved is on the disk. Raises what :meth:`save` does."""
        if self._writer is not None:
            self._writer.wait()

    @contextmanager
    def written_at_the_end(self) -> Iterator[None]:
        """After the block all that it has saved is on the disk; all processes fail together where that failed."""
        try:
            yield
        except BaseException as reason:  # not together: who knows where the other processes are
            self._close(reason)
            raise
        with distributed.together():
            self.wait()

    def _close(self, reason: BaseException) -> None:
        """Wait, where a run ends for a `reason`; if that is another one, what is not written is told in the log."""
        if self._writer is not None:
            self._writer.join()
            if self.failure is not None and self.failure is not reason:
                logger.error("%s", self.failure)

    def _best_before(self, score: str) -> tuple[float, Path] | None:
        """The best checkpoint of before the resumption, with its score."""
        best: tuple[float, Path] | None = None
        for path in self.folder.glob(f"{glob.escape(_best_name(score))}_iter_*.pth"):
            try:
                scores = read_checkpoint(path)["meta"].get("score")
            except CheckpointError as error:
                logger.warning("not compared with the best checkpoint of before: %s", error.found)
                continue
            value = scores.get(score) if isinstance(scores, Mapping) else None
            if isinstance(value, float) and (best is None or is_better(score, value, best[0])):
                best = value, path
        return best

    def _weights(self, done: int, **meta: Any) -> dict[str, Any]:
        """Meta and weights. The optimiser changes parameters; the rest, which forward passes change, is copied here."""
        parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        with self.average.applied() if self.average else nullcontext():
            state = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        state = {name: tensor if name in parameters else tensor.clone() for name, tensor in state.items()}
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        return {"meta": {**own_meta(), **self.meta, "iter": done, "time": when, **meta}, "state_dict": state}

    def _check_finite(self, state: Mapping[str, Any]) -> None:
        """Raise NonFiniteError for a state with trained weights that no training can go on from."""
        trained = state.get(TRAINED, state["state_dict"])
        for name, _ in self.model.named_parameters():
            if not torch.isfinite(trained[name]).all():
                raise NonFiniteError(
                    f"after iteration {state['meta']['iter']} the weight {name} is not finite",
                    "finite weights",
                    f"resume from {LATEST} with a lower learning rate, or without amp; nothing was saved",
                )


def _best_name(score: str) -> str:
    """Start of the file name of the best checkpoint by a score, whose name may hold a class's."""
    return "best_" + re.sub(r"[^\w.+-]", "_", score)


def own_meta() -> dict[str, Any]:
    """The entries of ``meta`` by which ``finished_iterations`` knows our own files."""
    return {"writer": WRITER, "mmseg_version": __version__}
