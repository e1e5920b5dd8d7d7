"""Learning rate as a function of the iteration, and of nothing else: resuming needs no state of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from mmseg.errors import ConfigError, nearest

_WARMUPS = ("constant", "linear", "exp")
_COMMON_KEYS = frozenset(("policy", "by_epoch", "warmup", "warmup_iters", "warmup_ratio"))
_POLICY_KEYS = {
    "poly": frozenset(("power", "min_lr")),
    "fixed": frozenset(),
    "step": frozenset(("step", "gamma", "min_lr")),
}


def learning_rate(base_lr: float, iteration: int, lr_config: Mapping[str, Any], max_iters: int) -> float:
    """The learning rate of one update (CFFM specification: poly decay that already runs during the warm-up).

    Args:
        base_lr: learning rate of the parameter group.
        iteration: number of the update, counted from 0.
        lr_config: ``policy`` is 'poly' (``power``, ``min_lr``), 'step' (``step``, ``gamma``, ``min_lr``) or 'fixed';
            ``warmup`` is None, 'constant', 'linear' or 'exp', over ``warmup_iters``, starting at ``warmup_ratio``.
        max_iters: number of updates of the whole run.
    """
    lr = _regular_rate(base_lr, iteration, lr_config, max_iters)
    warmup, warmup_iters = lr_config.get("warmup"), lr_config.get("warmup_iters", 0)
    if warmup is None or iteration >= warmup_iters:
        return lr
    ratio = lr_config.get("warmup_ratio", 0.1)
    left = 1 - iteration / warmup_iters
    if warmup == "constant":
        return lr * ratio
    if warmup == "exp":
        return lr * ratio**left
    return lr * (1 - left * (1 - ratio))


def _regular_rate(base_lr: float, iteration: int, lr_config: Mapping[str, Any], max_iters: int) -> float:
    """The learning rate without warm-up."""
    policy = str(lr_config["policy"]).lower()
    if policy == "fixed":
        return base_lr
    min_lr = lr_config.get("min_lr", 0.0)
    if policy == "poly":
        remaining = max(0.0, 1 - iteration / max_iters)
        return (base_lr - min_lr) * remaining ** lr_config.get("power", 1.0) + min_lr
    step = lr_config["step"]
    passed = iteration // step if isinstance(step, int) else sum(iteration >= s for s in step)
    return max(base_lr * lr_config.get("gamma", 0.1) ** passed, min_lr)


def check_lr_config(lr_config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a policy, a warm-up or a key that :func:`learning_rate` does not know."""
    policy = str(lr_config.get("policy")).lower()
    if policy not in _POLICY_KEYS:
        raise ConfigError(
            f"lr_config.policy = {lr_config.get('policy')!r}",
            "one of " + ", ".join(sorted(_POLICY_KEYS)),
            nearest(policy, _POLICY_KEYS),
        )
    keys = _COMMON_KEYS | _POLICY_KEYS[policy]
    for key in lr_config:
        if key not in keys:
            raise ConfigError(
                f"lr_config: unknown key {key!r} for policy {policy!r}", f"one of {sorted(keys)}", nearest(key, keys)
            )
    if policy == "step" and "step" not in lr_config:
        raise ConfigError("lr_config: policy 'step' without 'step'", "iterations at which the rate drops", "add it")
    if lr_config.get("by_epoch", False):
        raise ConfigError(
            "lr_config.by_epoch = True", "by_epoch=False", "count in iterations: runs are iteration-based"
        )
    if lr_config.get("warmup") not in (None, *_WARMUPS):
        raise ConfigError(
            f"lr_config.warmup = {lr_config['warmup']!r}",
            f"None or one of {', '.join(_WARMUPS)}",
            nearest(str(lr_config["warmup"]), _WARMUPS),
        )


class Schedule:
    """Sets the learning rates of an optimiser before each update.

    Args:
        optimizer: its groups' learning rates at this moment are the base rates.
        lr_config: see :func:`learning_rate`.
        max_iters: number of updates of the whole run.

    Raises:
        ConfigError: `lr_config` names a policy or a key that does not exist.
    """

    def __init__(self, optimizer: Optimizer, lr_config: Mapping[str, Any], max_iters: int) -> None:
        check_lr_config(lr_config)
        self.optimizer, self.lr_config, self.max_iters = optimizer, dict(lr_config), max_iters
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def step(self, iteration: int) -> None:
        """Set every group's rate to that of update `iteration`, counted from 0."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = learning_rate(base_lr, iteration, self.lr_config, self.max_iters)
