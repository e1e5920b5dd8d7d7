"""Sections of a config that say how weights are updated: optimiser, clipping and learning rate.

They belong to the table in :mod:`mmseg.sections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, AllowInfNan, ConfigDict, Field, model_validator

from mmseg import values
from mmseg.errors import ConfigError, nearest
from mmseg.values import ByEpoch, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section, Text


class ParameterRule(Section):
    lr_mult: NonNegativeFloat = 1.0
    decay_mult: NonNegativeFloat = 1.0


class Paramwise(Section):
    """Factors of learning rate and weight decay for some parameters, as mmcv has them.

    The ``custom_keys`` are tried longest first (ties alphabetically), as substrings of the full name; the first that
    matches decides alone, nothing is combined with it (CFFM specification, section 8). The other keys go by the layer
    that owns the parameter: biases but not those of norms (their decay: also not those of depth-wise convolutions),
    norms, depth-wise convolutions. Shared parameters are never counted twice, with or without `bypass_duplicate`.
    """

    custom_keys: dict[str, ParameterRule] = Field(default_factory=dict)
    bias_lr_mult: NonNegativeFloat = 1.0
    bias_decay_mult: NonNegativeFloat = 1.0
    norm_decay_mult: NonNegativeFloat = 1.0
    dwconv_decay_mult: NonNegativeFloat = 1.0
    bypass_duplicate: bool = False


class Optimizer(Section):
    """Further keys are those of the class in ``torch.optim``, and so are the defaults of these."""

    model_config = ConfigDict(extra="allow")
    type: Text
    lr: NonNegativeFloat | None = None
    weight_decay: NonNegativeFloat | None = None
    momentum: NonNegativeFloat | None = None
    betas: Sequence[Annotated[float, Ge(0), Lt(1)]] | None = None
    eps: NonNegativeFloat | None = None
    paramwise_cfg: Paramwise | None = None


class GradClip(Section):
    """Arguments of ``torch.nn.utils.clip_grad_norm_``."""

    max_norm: Annotated[float, Gt(0), AllowInfNan(True)]
    norm_type: Annotated[float, Gt(0), AllowInfNan(True)] = 2.0
    error_if_nonfinite: bool = False
    foreach: bool | None = None


class OptimizerConfig(Section):
    grad_clip: GradClip | None = None
    cumulative_iters: PositiveInt | None = None


class LearningRate(Section):
    """What all policies have in common."""

    policy: str
    by_epoch: ByEpoch = False
    warmup_by_epoch: ByEpoch = False
    warmup: Literal["constant", "linear", "exp"] | None = None
    warmup_iters: NonNegativeInt = 0
    warmup_ratio: Annotated[float, Gt(0), Le(1)] = 0.1


class Poly(LearningRate):
    """From the base rate to `min_lr` as (1 - iteration / max_iters) to the power of `power`."""

    power: NonNegativeFloat = 1.0
    min_lr: NonNegativeFloat = 0.0


def _ascending(steps: Sequence[int]) -> Sequence[int]:
    if list(steps) != sorted(steps):
        raise ValueError("iterations in ascending order")
    return steps


class Step(LearningRate):
    """Times `gamma` every `step` iterations, or at the iterations listed in `step`; never below `min_lr`."""

    step: PositiveInt | Annotated[Sequence[PositiveInt], MinLen(1), AfterValidator(_ascending)]
    gamma: PositiveFloat = 0.1
    min_lr: NonNegativeFloat = 0.0


class Cosine(LearningRate):
    """Half a cosine from the base rate to `min_lr`, or to `min_lr_ratio` times the base rate."""

    min_lr: NonNegativeFloat | None = None
    min_lr_ratio: Annotated[float, Ge(0), Le(1)] | None = None

    @model_validator(mode="after")
    def _one_minimum(self) -> Cosine:
        if self.min_lr is not None and self.min_lr_ratio is not None:
            raise ValueError("either min_lr or min_lr_ratio")
        return self


POLICIES: dict[str, type[LearningRate]] = {
    "fixed": LearningRate,
    "poly": Poly,
    "step": Step,
    "cosine": Cosine,
    "cosineannealing": Cosine,  # mmcv's name
}


def schedule(section: Any) -> type[LearningRate]:
    """The section of a learning rate with this policy."""
    policy = section.get("policy") if isinstance(section, Mapping) else "fixed"
    if str(policy).lower() not in POLICIES:
        known = ", ".join(POLICIES)
        raise ConfigError(
            f"lr_config.policy = {values.shown(policy)}", f"one of {known}", nearest(str(policy), POLICIES)
        )
    return POLICIES[str(policy).lower()]
