"""The checkpoints of one run: which are written, how long they are kept, and how a run goes on from one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg import distributed
from mmseg.engine import checkpoints as ckpt
from mmseg.engine.optim import load_optimizer_state
from mmseg.engine.step import Updater
from mmseg.errors import CheckpointError, SegError

logger = logging.getLogger("mmseg.engine")


class NonFiniteError(SegError):
    """A loss or a weight has become infinite or undefined; nothing has been saved since."""


class Keeper:
    """Writes ``iter_N.pth``, ``latest.pth`` and ``best_<score>_iter_N.pth`` in the main process.

    Args:
        folder: work folder.
        model: the unwrapped model.
        updater: holds the optimiser and the loss scaler.
        meta: what every checkpoint says about the run (seed, config text, CLASSES ...).
        max_keep: how many ``iter_N.pth`` stay; below 1 all do.
        resumed: whether the best checkpoint in `folder` is an earlier part of this run.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        updater: Updater,
        meta: Mapping[str, Any],
        max_keep: int = -1,
        resumed: bool = False,
    ) -> None:
        self.folder, self.model, self.updater, self.meta, self.max_keep = folder, model, updater, meta, max_keep
        self.resumed = resumed
        self.saved: int | None = None  # iteration of the newest checkpoint of this run
        self._best: tuple[float, Path] | None = None
        if distributed.is_main():
            ckpt.sweep_temporary(folder)

    def save(self, done: int, **meta: Any) -> None:
        """Write the checkpoint of `done` finished iterations, unless it has been written already.

        Args:
            done: number of finished iterations.
            meta: further entries of its ``meta``.

        Raises:
            CheckpointError: it cannot be written.
            NonFiniteError: a weight is not a finite number.
        """
        if self.saved == done or not distributed.is_main():
            return
        path = self.folder / f"iter_{done}.pth"
        optimizer, scaler = self.updater.optimizer, self.updater.scaler
        state = {**self._weights(done, **meta), "optimizer": optimizer.state_dict()}
        if scaler.is_enabled():
            state["scaler"] = scaler.state_dict()
        ckpt.save_checkpoint(path, state)
        ckpt.point_latest(path)
        ckpt.prune(self.folder, self.max_keep)
        self.saved = done
        logger.info("saved %s", path)

    def save_best(self, done: int, score: str, value: float) -> None:
        """Write the weights to ``best_<score>_iter_<done>.pth`` if `value` is higher than ever; drop the one before."""
        if not distributed.is_main():
            return
        if math.isnan(value):
            logger.warning("evaluation.save_best: %s is undefined on this validation data, nothing saved", score)
            return
        best = self._best or (self._best_before(score) if self.resumed else None)
        if best and value <= best[0]:
            return
        path = self.folder / f"best_{score.replace('/', '_')}_iter_{done}.pth"
        state = self._weights(done, score={score: value})
        ckpt.save_checkpoint(path, state)
        self._best = (value, path)
        if best and best[1] != path:
            best[1].unlink(missing_ok=True)
        logger.info("best %s so far: %.4f, saved %s", score, value, path)

    def _best_before(self, score: str) -> tuple[float, Path] | None:
        """The best checkpoint of before the resumption, with its score."""
        found = []
        for path in self.folder.glob(f"best_{score.replace('/', '_')}_iter_*.pth"):
            value = ckpt.read_checkpoint(path)["meta"].get("score", {}).get(score)
            if isinstance(value, float):
                found.append((value, path))
        return max(found, default=None)

    def _weights(self, done: int, **meta: Any) -> dict[str, Any]:
        state = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NonFiniteError(
                    f"after iteration {done} the weight {name} is not finite",
                    "finite weights",
                    f"resume from {ckpt.LATEST} with a lower learning rate, or without amp; nothing was saved",
                )
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        return {"meta": {**ckpt.own_meta(), **self.meta, "iter": done, "time": when, **meta}, "state_dict": state}


def resume(path: str | Path, model: nn.Module, updater: Updater, meta: Mapping[str, Any]) -> int:
    """Restore weights, optimiser and loss scaler from a checkpoint.

    Args:
        path: a checkpoint of ours or of mmcv's iteration runner.
        meta: of the new run; what changes the course of the training is compared and reported.

    Returns:
        The number of finished iterations, with which the training goes on.

    Raises:
        CheckpointError: the file cannot be read, is of another model, or holds weights only.
    """
    checkpoint = ckpt.load_checkpoint(model, path, strict=True)
    done = ckpt.finished_iterations(checkpoint, path)
    if "optimizer" not in checkpoint:
        raise CheckpointError(
            f"{path}: holds no optimiser state",
            "a checkpoint named iter_N.pth",
            "start from its weights with --load-from",
        )
    load_optimizer_state(updater.optimizer, checkpoint["optimizer"], path)
    if "scaler" in checkpoint and updater.scaler.is_enabled():
        updater.scaler.load_state_dict(checkpoint["scaler"])
    for key in ("seed", "world_size", "samples_per_gpu", "gradient_accumulation", "amp"):
        before = checkpoint["meta"].get(key, meta[key])
        if before != meta[key]:
            logger.warning(
                "%s was %s and is %s now: the run goes on, but not exactly as before", key, before, meta[key]
            )
    logger.info("resumed from %s after %d iterations", path, done)
    return done
