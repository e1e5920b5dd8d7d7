"""The checkpoints of a run: written so that no crash can damage one, kept as long as asked, and resumed from.

A checkpoint is ``dict(meta, state_dict, optimizer, ...)``. ``meta['iter']`` is the number of finished iterations.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from mmseg import distributed
from mmseg.engine.average import TRAINED, AveragedWeights, restore_weights
from mmseg.engine.monitor import is_better
from mmseg.engine.optim import load_optimizer_state, short
from mmseg.errors import CheckpointError, SegError
from mmseg.files import NewFile, sweep, sync_folder, temporary_name
from mmseg.version import __version__
from mmseg.weights import load_checkpoint, read_checkpoint, write_weights_file

if TYPE_CHECKING:
    from mmseg.engine.monitor import Patience
    from mmseg.engine.step import Updater

logger = logging.getLogger("mmseg.engine")

LATEST = "latest.pth"
_WRITER = "mmseg-video"
_MOST_ITERATIONS = 10**12  # a larger number in a file is a damaged one
_ADVICE = (
    f"lower checkpoint_config.max_keep_ckpts or choose another --work-dir, then resume from {LATEST}; earlier "
    "checkpoints are intact"
)


class NonFiniteError(SegError):
    """A loss or a weight has become infinite or undefined; nothing has been saved since."""


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


def find_latest(folder: str | Path) -> Path | None:
    """The newest checkpoint of a work folder, or None."""
    latest = Path(folder) / LATEST
    if latest.is_file():
        return latest
    numbered = iteration_checkpoints(folder)
    return numbered[-1] if numbered else None


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
    ) -> None:
        self.run_name = run_name
        self.folder, self.model, self.updater, self.meta, self.max_keep = folder, model, updater, meta, max_keep
        self.resumed, self.average, self.patience = resumed, average, patience
        self.saved: int | None = None  # iteration of the newest checkpoint of this run
        self._best: tuple[float, Path] | None = None
        if distributed.is_main():
            sweep(folder)

    def save(self, done: int, **meta: Any) -> None:
        """Write the checkpoint of `done` finished iterations, unless it has been written already.

        Args:
            done: number of finished iterations.
            meta: further entries of its ``meta``.

        Raises:
            WriteError: it cannot be written.
            NonFiniteError: a weight is not a finite number.
        """
        if self.saved == done or not distributed.is_main():
            return
        path = self.folder / f"iter_{done}.pth"
        optimizer, scaler = self.updater.optimizer, self.updater.scaler
        if self.patience:
            meta["early_stopping"] = self.patience.state_dict()
        state = {**self._weights(done, **meta), "optimizer": optimizer.state_dict()}
        if self.average:
            state[TRAINED] = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        if scaler.is_enabled():
            state["scaler"] = scaler.state_dict()
        save_checkpoint(path, state)
        point_latest(path)
        if self.run_name:
            save_checkpoint(self.folder / f"{self.run_name}_{done}.pth", state["state_dict"])
            point_latest(path, f"{self.run_name}_checkpoint.pth")
        prune(self.folder, self.max_keep)
        self.saved = done
        logger.info("saved %s", path)

    def save_best(self, done: int, score: str, value: float) -> None:
        """Write the weights to ``best_<score>_iter_<done>.pth`` if `value` is better than ever; drop the one before.

        Args:
            done: number of finished iterations.
            score: its name.
            value: not nan.
        """
        if not distributed.is_main():
            return
        best = self._best or (self._best_before(score) if self.resumed else None)
        if best and not is_better(score, value, best[0]):
            return
        path = self.folder / f"{_best_name(score)}_iter_{done}.pth"
        save_checkpoint(path, self._weights(done, score={score: value}))
        self._best = (value, path)
        if best and best[1] != path:
            best[1].unlink(missing_ok=True)
        logger.info("best %s so far: %.4f, saved %s", score, value, path)

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
        with self.average.applied() if self.average else nullcontext():
            state = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NonFiniteError(
                    f"after iteration {done} the weight {name} is not finite",
                    "finite weights",
                    f"resume from {LATEST} with a lower learning rate, or without amp; nothing was saved",
                )
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        return {"meta": {**own_meta(), **self.meta, "iter": done, "time": when, **meta}, "state_dict": state}


def _best_name(score: str) -> str:
    """Start of the file name of the best checkpoint by a score, whose name may hold a class's."""
    return "best_" + re.sub(r"[^\w.+-]", "_", score)


def own_meta() -> dict[str, Any]:
    """The entries of ``meta`` by which :func:`finished_iterations` knows our own files."""
    return {"writer": _WRITER, "mmseg_version": __version__}


# --- going on from one ------------------------------------------------------------------------------------------------


def resume(
    path: str | Path,
    model: nn.Module,
    updater: Updater,
    meta: Mapping[str, Any],
    average: AveragedWeights | None = None,
    patience: Patience | None = None,
) -> int:
    """Restore weights, optimiser and loss scaler from a checkpoint.

    Args:
        path: a checkpoint of ours, of mmcv's iteration runner or of GSFM's training script.
        model: receives the weights.
        updater: its optimiser and loss scaler receive their state.
        meta: of the new run; what changes the course of the training is compared and reported.
        average: receives the averaged weights, if there are any; else the average starts here.
        patience: receives the count of evaluations.

    Returns:
        The number of finished iterations, with which the training goes on.

    Raises:
        CheckpointError: the file cannot be read, is of another model, or holds weights only.
    """
    checkpoint = load_checkpoint(model, path, purpose="resume")
    done = finished_iterations(checkpoint, path)
    if "optimizer" not in checkpoint:
        raise CheckpointError(
            f"{path}: holds no optimiser state",
            "a checkpoint named iter_N.pth",
            "start from its weights with --load-from",
        )
    order = [name for name, _ in model.named_parameters()]
    try:
        load_optimizer_state(updater.optimizer, checkpoint["optimizer"], order, path)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, OverflowError) as error:
        raise _damaged(path, f"its optimiser state cannot be used ({error})") from error
    if "scaler" in checkpoint and updater.scaler.is_enabled():
        _load_scaler(updater.scaler, checkpoint["scaler"], path)
    restore_weights(model, checkpoint, average, path)
    if patience:
        patience.load_state_dict(checkpoint["meta"].get("early_stopping"))
    _compare(checkpoint["meta"], meta, path)
    logger.info("resumed from %s after %d iterations", path, done)
    return done


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], path: str | Path) -> None:
    """Warn of what changes the course of a resumed training."""
    for key in ("seed", "world_size", "samples_per_gpu", "gradient_accumulation", "amp", "finetune_trains"):
        value = before.get(key, now[key])
        parts = value.values() if isinstance(value, Mapping) else [value]
        if not all(part is None or isinstance(part, bool | int | float | str) for part in parts):
            raise _damaged(path, f"meta[{key!r}] is no plain value")
        if value != now[key]:
            logger.warning("%s was %s and is %s now: the run goes on, but not exactly as before", key, value, now[key])


class SavedRun(NamedTuple):
    """What a checkpoint says about the run that wrote it, as far as a resumed one has to do the same."""

    is_ours: bool  # not mmcv's
    seed: int | None
    finetune_trains: str | None  # part of the names of the parameters that were trained; None: all
    classes: Sequence[str] | None


def saved_run(path: str | Path) -> SavedRun:
    """What a checkpoint says about its run. Raises CheckpointError."""
    meta = read_checkpoint(path)["meta"]
    seed, part, classes = meta.get("seed"), meta.get("finetune_trains"), meta.get("CLASSES")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise _damaged(path, f"meta['seed'] is no seed but {short(seed)}")
    if part is not None and not isinstance(part, str):
        raise _damaged(path, f"meta['finetune_trains'] is no part of a name but {short(part)}")
    is_list = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    return SavedRun(_is_ours(meta), seed, part, classes if is_list else None)


def _is_ours(meta: Mapping[str, Any]) -> bool:
    writer = meta.get("writer")
    return isinstance(writer, str) and writer == _WRITER


def finished_iterations(checkpoint: Mapping[str, Any], path: str | Path) -> int:
    """How many updates a checkpoint has seen.

    Files of mmcv 1.x count from 0: their ``iter_10.pth`` holds 9 in ``meta['iter']``. They lack our own entries.

    Raises:
        CheckpointError: the file has no iteration number.
    """
    done = checkpoint["meta"].get("iter")
    if done is None and type(checkpoint.get("it")) is int:
        done = checkpoint["it"] - 1  # updates, as the script of GSFM counts them
    if done is None:
        raise CheckpointError(
            f"{path}: holds weights but no iteration number",
            "a checkpoint that a training run wrote",
            "start from its weights with --load-from instead of --resume-from",
        )
    if type(done) is not int or not 0 <= done <= _MOST_ITERATIONS:
        raise _damaged(path, f"meta['iter'] is no number of iterations but {short(done)}")
    return done if _is_ours(checkpoint["meta"]) else done + 1


def _load_scaler(scaler: torch.amp.GradScaler, saved: Any, path: str | Path) -> None:
    """Restore the scale and for how long it has been good; by what it grows is a setting."""
    saved = saved if isinstance(saved, Mapping) else {}
    scale, tracker = saved.get("scale"), saved.get("_growth_tracker")
    if not isinstance(scale, float) or not 0 < scale < 2**100 or type(tracker) is not int or not 0 <= tracker < 2**31:
        raise _damaged(path, "its loss scaler has no usable state")
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": tracker})


def _damaged(path: str | Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}",
        "a checkpoint as a training run writes it",
        "resume from another one, or start from its weights with --load-from",
    )
