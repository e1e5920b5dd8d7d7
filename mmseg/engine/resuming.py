"""Going on from a checkpoint: what a training restores, and what the file says about the run that wrote it."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from mmseg import distributed
from mmseg.engine.average import AveragedWeights, restore_weights
from mmseg.engine.checkpoints import newest_first
from mmseg.engine.optim import load_optimizer_state, short
from mmseg.errors import CheckpointError
from mmseg.version import WRITER
from mmseg.weights import load_checkpoint, read_checkpoint

if TYPE_CHECKING:
    from mmseg.engine.monitor import Patience
    from mmseg.engine.step import Updater

logger = logging.getLogger("mmseg.engine")

_MOST_ITERATIONS = 10**12  # a larger number in a file is a damaged one


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
    return SavedRun(_is_ours(meta), seed, part, classes)


def agree_on_newest(folder: str | Path, run: str | None = None) -> Path | None:
    """The newest checkpoint of a work folder that is whole; the same in all processes, as the main one finds it.

    Args:
        folder: may be missing.
        run: only a checkpoint that this run has written (:class:`mmseg.launchers.Restart`).

    Returns:
        None if there is no checkpoint, or the newest whole one is of another run.

    Raises:
        CheckpointError: there are some, and all are damaged.
    """
    newest = None
    with distributed.together():
        if distributed.is_main():
            newest = _newest_whole(folder, run)
    return distributed.broadcast_object(newest)


def _newest_whole(folder: str | Path, run: str | None) -> Path | None:
    damage: CheckpointError | None = None
    for path in newest_first(folder):
        try:
            meta = read_checkpoint(path)["meta"]
            _check_sums(path)
        except CheckpointError as error:
            logger.warning("not resumed from, the checkpoint before it is tried: %s", error.found)
            damage = damage or error
            continue
        return path if run in (None, meta.get("run")) else None
    if damage is not None and run is None:
        raise damage
    return None


def _check_sums(path: Path) -> None:
    """Raise CheckpointError for a file whose bytes are not those that were written; PyTorch does not look."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            wrong = str(error)
        if wrong is not None:
            raise _damaged(path, f"some of its bytes are not those that were written ({wrong})")


def _is_ours(meta: Mapping[str, Any]) -> bool:
    writer = meta.get("writer")
    return isinstance(writer, str) and writer == WRITER


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
