"""Every section of a config that the package reads: its keys, their types and their ranges.

``TABLE`` is the one list: what stands in it is read somewhere, and what does not is refused. Sections that describe an
object (``model``, the data sets, ``optimizer``) have further keys, which are those of the object's constructor and are
checked when it is built (:mod:`mmseg.registry`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, Lt, MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    TypeAdapter,
    model_validator,
)

from mmseg import compat, values
from mmseg.update_sections import Optimizer, OptimizerConfig, schedule
from mmseg.values import ByEpoch, NonNegativeFloat, NonNegativeInt, PositiveInt, Section, Text

Interval = PositiveInt | Literal[-1] | None  # -1 and None: never


def _has_type(section: dict[str, Any]) -> dict[str, Any]:
    if "type" not in section:
        raise ValueError("a dict with a type")
    return section


Component = Annotated[dict[str, Any], AfterValidator(_has_type)]


def _one_data_set(section: Any) -> Any:
    if isinstance(section, list | tuple):
        raise ValueError("one data set as a dict: results are scored and written by the names of its videos")
    return section


OneDataSet = Annotated[Component, BeforeValidator(_one_data_set)]


class Data(Section):
    samples_per_gpu: PositiveInt = 1
    workers_per_gpu: NonNegativeInt = 2
    train: Component | Annotated[Sequence[Component], MinLen(1)] | None = None
    val: OneDataSet | None = None
    test: OneDataSet | None = None


def _iteration_based(name: str) -> str:
    if name != "IterBasedRunner":
        raise ValueError("dict(type='IterBasedRunner', max_iters=epochs * clips of an epoch / clips of an iteration)")
    return name


class Runner(Section):
    type: Annotated[str, AfterValidator(_iteration_based)] = "IterBasedRunner"
    max_iters: PositiveInt

    @model_validator(mode="before")
    @classmethod
    def _no_epochs(cls, section: Any) -> Any:
        """A runner of epochs is told by its type, not by the key that it brings along."""
        if isinstance(section, dict) and section.get("type") == "EpochBasedRunner":
            return {"max_iters": 1, **{key: value for key, value in section.items() if key != "max_epochs"}}
        return section


def _with_optimizer(save_optimizer: bool) -> bool:
    if not save_optimizer:
        raise ValueError("True: no run can go on without it; best_*.pth (evaluation.save_best) holds weights alone")
    return save_optimizer


class Checkpoints(Section):
    """`background`: write while the training goes on, from a copy in main memory. `run_name` R adds the names of the
    script of GSFM: ``R_N.pth``, weights alone, and ``R_checkpoint.pth``."""

    interval: Interval = None
    background: bool = True
    run_name: Text | None = None
    max_keep_ckpts: PositiveInt | Literal[-1] = -1
    by_epoch: ByEpoch = False
    save_optimizer: Annotated[bool, AfterValidator(_with_optimizer)] = True


class Evaluation(Section):
    interval: Interval = None
    metric: Text | Annotated[Sequence[Text], MinLen(1)] | None = None
    save_best: Text | None = None
    by_epoch: ByEpoch = False


class TextLoggerHook(Section):
    type: Literal["TextLoggerHook"]
    by_epoch: ByEpoch = False


class TensorboardLoggerHook(Section):
    type: Literal["TensorboardLoggerHook"]
    by_epoch: ByEpoch = False


class WandbLoggerHook(Section):
    """`init_kwargs` are those of ``wandb.init``: project, name, entity, config ..."""

    type: Literal["WandbLoggerHook"]
    init_kwargs: dict[str, Any] | None = None
    by_epoch: ByEpoch = False


LoggerHook = Annotated[TextLoggerHook | TensorboardLoggerHook | WandbLoggerHook, Discriminator("type")]


class Log(Section):
    interval: PositiveInt = 50
    hooks: Sequence[LoggerHook] = ()


class MovingAverage(Section):
    """An exponential moving average of the weights, which is what is evaluated and saved.

    Every `interval` iterations the average takes over the share 1 - (1 - `momentum`) ** `interval` of the weights, in
    the beginning at most (1 + iteration) / (`warm_up` + iteration).
    """

    momentum: Annotated[float, Gt(0), Lt(1)] = 0.0002
    interval: PositiveInt = 1
    warm_up: PositiveInt = 100


class EarlyStopping(Section):
    """Ends the training after `patience` evaluations in a row that do not beat the best score by `min_delta`.

    `monitor` is the name of a score or 'auto'; `rule` 'less' is for scores that are better when lower; None: the name
    of the score tells.
    """

    monitor: Text = "auto"
    patience: PositiveInt = 5
    rule: Literal["greater", "less"] | None = None
    min_delta: NonNegativeFloat = 0.0


class EMAHook(MovingAverage):
    type: Literal["EMAHook"]


class EarlyStoppingHook(EarlyStopping):
    type: Literal["EarlyStoppingHook"]


CustomHook = Annotated[EMAHook | EarlyStoppingHook, Discriminator("type")]


class Processes(Section):
    backend: Literal["nccl", "gloo", "mpi"] | None = None


class MixedPrecision(Section):
    dtype: Literal["bfloat16", "float16"] = "bfloat16"


def _compiler(name: str) -> str:
    from torch import compiler  # only where one is named: the table itself needs no torch

    if name not in compiler.list_backends(exclude_tags=()):
        raise ValueError(f"one of {', '.join(compiler.list_backends())}")
    return name


class Compilation(Section):
    """Arguments of ``torch.compile``."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None
    backend: Annotated[str, AfterValidator(_compiler)] = "inductor"
    fullgraph: bool = False
    dynamic: bool | None = None
    options: dict[str, Any] | None = None


class CustomImports(Section):
    imports: Text | Sequence[Text]
    allow_failed_imports: bool = False


def _only_training(workflow: Sequence[Any]) -> Sequence[Any]:
    if [tuple(step) if isinstance(step, list | tuple) else step for step in workflow] != [("train", 1)]:
        raise ValueError("[('train', 1)]; validation is evaluation=dict(interval=...)")
    return workflow


Seed = Annotated[NonNegativeInt, Le(2**63 - 1)]

TABLE: dict[str, Any] = {
    "model": Component,
    "train_cfg": dict[str, Any] | None,  # of the model, where a config keeps it outside
    "test_cfg": dict[str, Any] | None,
    "data": Data,
    "data_root": Text | Annotated[Sequence[Text], MinLen(1)] | None,  # of every data set that names none
    "optimizer": Optimizer,
    "optimizer_config": OptimizerConfig | None,
    "lr_config": schedule,  # by its policy
    "runner": Runner,
    "checkpoint_config": Checkpoints | None,
    "evaluation": Evaluation | None,
    "log_config": Log | None,
    "ema": MovingAverage | None,
    "early_stopping": EarlyStopping | None,
    "custom_hooks": Sequence[CustomHook] | None,
    "log_level": Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None,
    "dist_params": Processes | None,
    "amp": MixedPrecision | None,
    "compile": bool | Compilation | None,
    "channels_last": bool | None,
    "gradient_accumulation": PositiveInt | None,
    "find_unused_parameters": bool,
    "cudnn_benchmark": bool | None,
    "deterministic": bool | None,
    "float32_matmul_precision": Literal["highest", "high", "medium"] | None,  # of GPUs; default highest
    "workflow": Annotated[Sequence[Any], AfterValidator(_only_training)],
    "seed": Seed | None,
    "load_from": Text | None,
    "finetune_from": Text | None,
    "resume_from": Text | None,
    "work_dir": Text | None,
    "custom_imports": CustomImports | None,
}


def check(name: str, section: Any, tell: bool = False) -> None:
    """Raise ConfigError unless the section `name` of a config can be `section`.

    Args:
        name: one of ``TABLE``.
        section: its value.
        tell: warn in the log of keys of published files that have no effect here.
    """
    read(name, section, tell)


def read(name: str, section: Any, tell: bool = False) -> Any:
    """The section `name` of a config as an object with an attribute for every key; None stays None.

    Args and errors: see :func:`check`.
    """
    section = _plain(section)
    if isinstance(section, dict):
        section = compat.effective([name], section, name, tell=tell)
    entry = TABLE[name]
    return values.parse(section, _checker(entry(section) if isinstance(entry, FunctionType) else entry), name)


@functools.cache
def _checker(annotation: Any) -> TypeAdapter:
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    return TypeAdapter(annotation, config=None if is_section else ConfigDict(strict=True, allow_inf_nan=False))


def _plain(value: Any) -> Any:
    """`value` with nothing but dicts, lists and what they hold: pydantic looks past what mmengine adds to a dict."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value
