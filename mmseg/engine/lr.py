"""Learning rate as a function of the iteration, and of nothing else: resuming needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer

from mmseg.errors import ConfigError, nearest
from mmseg.registry import check_arguments
from mmseg.values import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class Fixed:
    """The base rate throughout."""

    def rate(self, base_lr: float, iteration: int, max_iters: int) -> float:
        return base_lr


@dataclass(frozen=True)
class Poly:
    """From the base rate to `min_lr` as (1 - iteration / max_iters) to the power of `power`."""

    power: NonNegativeFloat = 1.0
    min_lr: NonNegativeFloat = 0.0

    def rate(self, base_lr: float, iteration: int, max_iters: int) -> float:
        remaining = max(0.0, 1 - iteration / max_iters)
        return (base_lr - self.min_lr) * remaining**self.power + self.min_lr


@dataclass(frozen=True)
class Step:
    """Times `gamma` every `step` iterations, or at the iterations listed in `step`; never below `min_lr`."""

    step: PositiveInt | Sequence[PositiveInt]
    gamma: PositiveFloat = 0.1
    min_lr: NonNegativeFloat = 0.0

    def rate(self, base_lr: float, iteration: int, max_iters: int) -> float:
        if isinstance(self.step, int):
            passed = iteration // self.step
        else:
            passed = sum(iteration >= step for step in self.step)
        return max(base_lr * self.gamma**passed, self.min_lr)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the base rate to `min_lr`, or to `min_lr_ratio` times the base rate (give one of them)."""

    min_lr: NonNegativeFloat | None = None
    min_lr_ratio: Fraction | None = None

    def rate(self, base_lr: float, iteration: int, max_iters: int) -> float:
        last = base_lr * self.min_lr_ratio if self.min_lr_ratio is not None else self.min_lr or 0.0
        return last + 0.5 * (base_lr - last) * (1 + math.cos(math.pi * min(1.0, iteration / max_iters)))


@dataclass(frozen=True)
class WarmUp:
    """Lowers the rate of the first `warmup_iters` iterations, by the factor `warmup_ratio` at the first of them."""

    warmup: Literal["constant", "linear", "exp"] | None = None
    warmup_iters: NonNegativeInt = 0
    warmup_ratio: Fraction = 0.1

    def factor(self, iteration: int) -> float:
        if self.warmup is None or iteration >= self.warmup_iters:
            return 1.0
        left = 1 - iteration / self.warmup_iters
        if self.warmup == "constant":
            return self.warmup_ratio
        if self.warmup == "exp":
            return self.warmup_ratio**left
        return 1 - left * (1 - self.warmup_ratio)


_POLICIES = {"fixed": Fixed, "poly": Poly, "step": Step, "cosine": Cosine, "cosineannealing": Cosine}
_WARM_UP_KEYS = ("warmup", "warmup_iters", "warmup_ratio")


class Schedule:
    """Sets the learning rates of an optimiser before each update.

    The policy runs from the first iteration on, during the warm-up too (CFFM specification, section 8).

    Args:
        optimizer: its groups' learning rates at this moment are the base rates.
        lr_config: ``policy`` is 'poly', 'step', 'fixed', 'cosine' or mmcv's 'CosineAnnealing', with the keys of the
            class above; ``warmup``, ``warmup_iters`` and ``warmup_ratio`` as in :class:`WarmUp`; ``by_epoch`` False.
        max_iters: number of updates of the whole run.

    Raises:
        ConfigError: `lr_config` names a policy or a key that does not exist, or a value that cannot be.
    """

    def __init__(self, optimizer: Optimizer, lr_config: Mapping[str, Any], max_iters: int) -> None:
        self.optimizer, self.max_iters = optimizer, max_iters
        self.policy, self.warm_up = read_lr_config(lr_config)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def step(self, iteration: int) -> None:
        """Set every group's rate to that of update `iteration`, counted from 0."""
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = self.rate(base_lr, iteration)

    def rate(self, base_lr: float, iteration: int) -> float:
        """The learning rate of update `iteration` for a group whose base rate is `base_lr`."""
        return self.policy.rate(base_lr, iteration, self.max_iters) * self.warm_up.factor(iteration)


def read_lr_config(lr_config: Mapping[str, Any]) -> tuple[Fixed | Poly | Step | Cosine, WarmUp]:
    """The policy and the warm-up of a config. Raises ConfigError; see :class:`Schedule`."""
    keys = dict(lr_config)
    policy = keys.pop("policy", None)
    cls = _POLICIES.get(str(policy).lower())
    if cls is None:
        names = ("poly", "step", "fixed", "cosine", "CosineAnnealing")
        raise ConfigError(
            f"lr_config.policy = {policy!r}", f"one of {', '.join(names)}", nearest(str(policy).lower(), names)
        )
    for key in ("by_epoch", "warmup_by_epoch"):
        if keys.pop(key, False):
            raise ConfigError(
                f"lr_config.{key} = True", f"{key}=False", "count in iterations, as runner.max_iters does"
            )
    warm_up = {key: keys.pop(key) for key in _WARM_UP_KEYS if key in keys}
    if keys.get("min_lr") is not None and keys.get("min_lr_ratio") is not None:
        raise ConfigError("lr_config.min_lr and lr_config.min_lr_ratio", "one of them", "remove the other")
    return (
        cls(**check_arguments(cls, keys, "lr_config")),
        WarmUp(**check_arguments(WarmUp, warm_up, "lr_config")),
    )
