"""The optimiser of a config: one parameter group per parameter, with its own learning rate and weight decay."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mmseg.errors import CheckpointError, ConfigError, nearest

_MULTIPLIERS = ("lr_mult", "decay_mult")


def build_optimizer(model: nn.Module, cfg: Mapping[str, Any]) -> Optimizer:
    """Build any optimiser of ``torch.optim``.

    ``paramwise_cfg.custom_keys`` maps pieces of parameter names to ``lr_mult`` and ``decay_mult``. The keys are
    tried longest first (ties alphabetically), as substrings of the full name; the first that matches decides
    alone, the others are not combined with it (CFFM specification, section 8).

    All parameters become part of the optimiser, also those that do not require a gradient: an optimiser leaves a
    parameter whose gradient is None untouched, weight decay included.

    Args:
        model: the unwrapped model, so that names have no prefix.
        cfg: ``dict(type='AdamW', lr=..., weight_decay=..., paramwise_cfg=dict(custom_keys=...), ...)``.

    Returns:
        The optimiser; its groups are in the order of ``model.named_parameters()`` and carry the parameter's ``name``.

    Raises:
        ConfigError: the type or a key is not known.
    """
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in cfg.items()}
    custom_keys = _custom_keys(kwargs.pop("paramwise_cfg", None) or {})
    cls = _optimizer_class(kwargs.pop("type", None))
    _check_arguments(cls, kwargs)
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    base_lr = kwargs.get("lr", defaults.get("lr"))
    base_decay = kwargs.get("weight_decay", defaults.get("weight_decay"))
    groups = []
    for name, parameter in model.named_parameters():
        group = {"params": [parameter], "name": name}
        rule = next((rule for key, rule in custom_keys if key in name), {})
        if "lr_mult" in rule:
            group["lr"] = base_lr * rule["lr_mult"]
        if "decay_mult" in rule:
            group["weight_decay"] = base_decay * rule["decay_mult"]
        groups.append(group)
    return cls(groups, **kwargs)


def _custom_keys(paramwise_cfg: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """The rules of ``paramwise_cfg`` in the order in which they are tried."""
    for key in paramwise_cfg:
        if key != "custom_keys":
            raise ConfigError(
                f"optimizer.paramwise_cfg: unknown key {key!r}", "custom_keys", nearest(key, ["custom_keys"])
            )
    rules = paramwise_cfg.get("custom_keys", {})
    for piece, rule in rules.items():
        for key in rule:
            if key not in _MULTIPLIERS:
                raise ConfigError(
                    f"optimizer.paramwise_cfg.custom_keys[{piece!r}]: unknown key {key!r}",
                    " or ".join(_MULTIPLIERS),
                    nearest(key, _MULTIPLIERS),
                )
    return [(piece, rules[piece]) for piece in sorted(sorted(rules), key=len, reverse=True)]


def _optimizer_class(name: Any) -> type[Optimizer]:
    classes = {n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, Optimizer)}
    classes.pop("Optimizer", None)
    if name not in classes:
        raise ConfigError(f"optimizer.type = {name!r}", "an optimiser of torch.optim", nearest(str(name), classes))
    return classes[name]


def _check_arguments(cls: type[Optimizer], kwargs: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    for key in kwargs:
        if key not in known:
            raise ConfigError(
                f"optimizer ({cls.__name__}): unknown key {key!r}", f"one of {', '.join(known)}", nearest(key, known)
            )


def load_optimizer_state(optimizer: Optimizer, saved: Mapping[str, Any], path: str | Path) -> None:
    """Restore the moments of every parameter; learning rates, decay and other settings stay those of the config.

    Args:
        optimizer: made by :func:`build_optimizer` for the same model.
        saved: ``state_dict()`` of an optimiser with the parameters in the same order.
        path: file that `saved` is from, for messages.

    Raises:
        CheckpointError: `saved` belongs to other parameters.
    """
    own = optimizer.state_dict()
    groups = saved.get("param_groups", [])
    indices = [index for group in groups for index in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = [group.get("name") for group in groups]
    wrong = len(indices) != len(parameters)
    wrong = wrong or any(a and a != b["name"] for a, b in zip(names, optimizer.param_groups))
    for index, parameter in zip(indices, parameters):
        tensors = [v for v in saved["state"].get(index, {}).values() if isinstance(v, torch.Tensor) and v.ndim]
        wrong = wrong or any(v.shape != parameter.shape for v in tensors)
    if wrong:
        raise CheckpointError(
            f"{path}: the optimiser state is for {len(indices)} parameters of other names or shapes",
            f"the {len(parameters)} parameters of this model in their order",
            "resume with the config of that run, or start from its weights with --load-from",
        )
    state = {number: saved["state"][index] for number, index in enumerate(indices) if index in saved["state"]}
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
