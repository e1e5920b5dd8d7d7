"""Learning rate as a function of the iteration, and of nothing else: resuming needs no state of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from mmseg import sections, update_sections

logger = logging.getLogger("mmseg.engine")


class Schedule:
    """Sets the learning rates of an optimiser before each update.

    The policy runs from the first iteration on, during the warm-up too (CFFM specification, section 8).

    Args:
        optimizer: its groups' learning rates at this moment are the base rates.
        lr_config: ``policy`` is 'poly', 'step', 'fixed', 'cosine' or mmcv's 'CosineAnnealing'; for their keys and those
            of the warm-up see :class:`mmseg.update_sections.LearningRate` and its subclasses.
        max_iters: number of updates of the whole run.

    Raises:
        ConfigError: `lr_config` names a policy or a key that does not exist, or a value that cannot be.
    """

    def __init__(self, optimizer: Optimizer, lr_config: Mapping[str, Any], max_iters: int) -> None:
        self.optimizer, self.max_iters = optimizer, max_iters
        self.section: update_sections.LearningRate = sections.read("lr_config", lr_config)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def tell_of_late_changes(self) -> None:
        """Warn of a warm-up or of steps that the run is too short for, as published ones are once it is shortened."""
        section = self.section
        if section.warmup is not None and section.warmup_iters >= self.max_iters:
            logger.warning(
                "lr_config.warmup_iters = %d, but runner.max_iters = %d: the learning rate is still being warmed up "
                "when the training ends, and never reaches optimizer.lr",
                *(section.warmup_iters, self.max_iters),
            )
        if isinstance(section, update_sections.Step):
            first = section.step if isinstance(section.step, int) else section.step[0]
            if first >= self.max_iters:
                logger.warning(
                    "lr_config.step = %s has no effect: the training ends before, after runner.max_iters = %d",
                    *(section.step, self.max_iters),
                )

    def step(self, iteration: int) -> None:
        """Set every group's rate to that of update `iteration`, counted from 0."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = self.rate(base_lr, iteration)

    def rate(self, base_lr: float, iteration: int) -> float:
        """The learning rate of update `iteration` for a group whose base rate is `base_lr`."""
        return _by_policy(self.section, base_lr, iteration, self.max_iters) * _warm_up(self.section, iteration)


def _by_policy(section: update_sections.LearningRate, base_lr: float, iteration: int, max_iters: int) -> float:
    """The learning rate without warm-up."""
    done = min(1.0, iteration / max_iters)
    if isinstance(section, update_sections.Poly):
        return (base_lr - section.min_lr) * (1 - done) ** section.power + section.min_lr
    if isinstance(section, update_sections.Step):
        one = isinstance(section.step, int)
        passed = iteration // section.step if one else sum(iteration >= step for step in section.step)
        return max(base_lr * section.gamma**passed, section.min_lr)
    if isinstance(section, update_sections.Cosine):
        last = base_lr * section.min_lr_ratio if section.min_lr_ratio is not None else section.min_lr or 0.0
        return last + 0.5 * (base_lr - last) * (1 + math.cos(math.pi * done))
    return base_lr


def _warm_up(section: update_sections.LearningRate, iteration: int) -> float:
    """The factor by which the first `warmup_iters` rates are lowered, `warmup_ratio` at the first of them."""
    if section.warmup is None or iteration >= section.warmup_iters:
        return 1.0
    left = 1 - iteration / section.warmup_iters
    if section.warmup == "constant":
        return section.warmup_ratio
    if section.warmup == "exp":
        return section.warmup_ratio**left
    return 1 - left * (1 - section.warmup_ratio)
