"""The optimiser of a config: few groups of parameters, each with a learning rate, a weight decay and their names."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from mmseg import compat, sections, update_sections
from mmseg.errors import CheckpointError, ConfigError, nearest
from mmseg.registry import check_arguments
from mmseg.weights import unusable

logger = logging.getLogger("mmseg.engine")

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # _NormBase: batch and instance norms
_LISTED = 3


def build_optimizer(model: nn.Module, cfg: Mapping[str, Any]) -> Optimizer:
    """Build any optimiser of ``torch.optim``.

    All parameters become part of it, also those that do not require a gradient: an optimiser leaves a parameter whose
    gradient is None untouched, weight decay included. Parameters with equal settings share a group, so that one kernel
    updates many of them; the fused kernels are taken where torch has them for this optimiser and device.

    Args:
        model: the unwrapped model, so that names have no prefix, on its device.
        cfg: ``dict(type='AdamW', lr=..., weight_decay=..., paramwise_cfg=dict(custom_keys=...), ...)``; see
            :class:`mmseg.update_sections.Paramwise`.

    Returns:
        The optimiser; its groups carry ``names``, those of their parameters, in the order of `model`.

    Raises:
        ConfigError: the type or a key is not known, or a value cannot be.
    """
    rules = sections.read("optimizer", cfg).paramwise_cfg or update_sections.Paramwise()
    kwargs = {key: value for key, value in cfg.items() if key != "paramwise_cfg"}
    cls = _optimizer_class(kwargs.pop("type"))
    kwargs = check_arguments(cls, kwargs, "optimizer", extra={"params": ()})
    del kwargs["params"]
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    base = {key: kwargs.get(key, defaults.get(key)) for key in ("lr", "weight_decay")}
    owners = {f"{prefix}." if prefix else "": module for prefix, module in model.named_modules()}
    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        owner = owners[name[: name.rfind(".") + 1]]
        settings = {key: base[key] * factor for key, factor in _factors(rules, name, owner).items() if base[key]}
        group = groups.setdefault(tuple(settings.items()), {"params": [], "names": [], **settings})
        group["params"].append(parameter)
        group["names"].append(name)
    kwargs = _tried(cls, kwargs, next(model.parameters()).device)
    try:
        optimizer = cls(list(groups.values()), **kwargs)
    except (ValueError, TypeError) as error:
        raise _impossible(cls, error) from error
    optimizer.register_step_post_hook(_tell_that_weights_changed)
    return optimizer


def _tell_that_weights_changed(optimizer: Optimizer, *_: Any) -> None:
    """Fused kernels write weights without counting it; what streams have made of the old ones would be kept."""
    for group in optimizer.param_groups:
        for weight in group["params"]:  # PyTorch before 2.7 takes no list
            torch.autograd.graph.increment_version(weight)


def _factors(rules: update_sections.Paramwise, name: str, owner: nn.Module) -> dict[str, float]:
    """Factors of ``lr`` and ``weight_decay`` of a parameter of the layer `owner`."""
    if (piece := _custom_key(rules, name)) is not None:
        rule = rules.custom_keys[piece]
        return {"lr": rule.lr_mult, "weight_decay": rule.decay_mult}
    is_norm, is_bias = isinstance(owner, _NORMS), name.rpartition(".")[2] == "bias"
    decay = 1.0
    if is_norm:
        decay = rules.norm_decay_mult
    elif isinstance(owner, nn.Conv2d) and owner.groups == owner.in_channels:
        decay = rules.dwconv_decay_mult
    elif is_bias:
        decay = rules.bias_decay_mult
    return {"lr": rules.bias_lr_mult if is_bias and not is_norm else 1.0, "weight_decay": decay}


def _custom_key(rules: update_sections.Paramwise, name: str) -> str | None:
    """The one of the ``custom_keys`` that decides about the parameter `name`, if any does."""
    by_length = sorted(sorted(rules.custom_keys), key=len, reverse=True)
    return next((piece for piece in by_length if piece in name), None)


def tell_of_idle_keys(model: nn.Module, cfg: Mapping[str, Any]) -> None:
    """Warn of ``custom_keys`` of an optimiser's section that decide about no parameter of `model`.

    A rule that changes nothing is no news, and neither are those of published configs for parts that a model lacks.
    """
    rules = sections.read("optimizer", cfg).paramwise_cfg or update_sections.Paramwise()
    names = [name for name, _ in model.named_parameters()]
    idle = set(rules.custom_keys) - {_custom_key(rules, name) for name in names} - compat.PUBLISHED_CUSTOM_KEYS
    for key in sorted(idle):
        if rules.custom_keys[key] != update_sections.ParameterRule():
            parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            logger.warning(
                "optimizer.paramwise_cfg.custom_keys.%s has no effect: %s",
                key,
                f"a longer key decides about every parameter with {key!r} in its name"
                if any(key in name for name in names)
                else f"no parameter has {key!r} in its name; names begin with {', '.join(parts)}",
            )


def _optimizer_class(name: Any) -> type[Optimizer]:
    classes = {n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, Optimizer)}
    classes.pop("Optimizer", None)
    if name not in classes:
        raise ConfigError(f"optimizer.type = {name!r}", "an optimiser of torch.optim", nearest(str(name), classes))
    return classes[name]


def _tried(cls: type[Optimizer], kwargs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """`kwargs`, with the fused kernel if torch has one for this optimiser and device: a step on a probe tells.

    A choice made in the config (``fused``, ``foreach``, ``differentiable``) is left alone.

    Raises:
        ConfigError: no step is possible.
    """
    choices = [dict(kwargs)]
    chosen = any(kwargs.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    if "fused" in inspect.signature(cls).parameters and not chosen:
        choices.insert(0, {**kwargs, "fused": True})
    for choice in choices:
        try:
            _probe(cls, choice, device)
            return choice
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            reason = error
    raise _impossible(cls, reason) from reason


def _probe(cls: type[Optimizer], kwargs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What an optimiser keeps of a parameter after one step."""
    parameter = nn.Parameter(torch.zeros(2, 2, device=device))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = cls([parameter], **kwargs)
    optimizer.step()
    return optimizer.state[parameter]


def _impossible(cls: type[Optimizer], error: Exception) -> ConfigError:
    return ConfigError(
        f"optimizer ({cls.__name__}) cannot work: {error}",
        "an optimiser for dense gradients",
        "correct its keys or type",
    )


# --- going on from a saved state --------------------------------------------------------------------------------------


def load_optimizer_state(
    optimizer: Optimizer, saved: Mapping[str, Any], order: Sequence[str], path: str | Path
) -> None:
    """Restore the moments of every parameter; learning rates, decay and other settings stay those of the config.

    Parameters are found by their names. Files without names (mmcv writes such) hold them in the order of the model.

    Args:
        optimizer: made by :func:`build_optimizer`.
        saved: ``state_dict()`` of an optimiser for the same parameters, in groups of any kind.
        order: names of the model's parameters, in the order of ``named_parameters()``.
        path: file that `saved` is from, for messages.

    Raises:
        CheckpointError: `saved` is of other parameters or of another optimiser, or no state of an optimiser.
    """
    _check_form(saved, path)
    try:
        states = _states_by_name(saved, order)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _unusable(path, f"cannot be read ({type(error).__name__}: {error})") from error
    own = optimizer.state_dict()
    names = [name for group in optimizer.param_groups for name in group["names"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if missing := [name for name in names if name not in states]:
        raise _unusable(path, f"lacks {_first(missing)}")
    if unexpected := sorted(set(states) - set(names)):
        raise _unusable(path, f"is for {_first(unexpected)}, which the model does not have")
    arguments = inspect.signature(type(optimizer)).parameters
    settings = {key: value for key, value in optimizer.defaults.items() if key in arguments}
    kept = _probe(type(optimizer), settings, parameters[0].device)
    entries = {key for key, value in kept.items() if value is not None}
    for name, parameter in zip(names, parameters):
        state = states[name]
        if state and not entries <= set(state):
            raise _unusable(
                path, f"has {sorted(state)} for {name}, where {type(optimizer).__name__} keeps {sorted(entries)}"
            )
        for key, value in state.items():
            if not _fits(value, parameter, kept.get(key)):
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise _unusable(path, f"has a {key} of shape {shape} for {name} {list(parameter.shape)}")
    state = {
        number: {key: _laid_out_as(parameter, value) for key, value in states[name].items()}
        for number, (name, parameter) in enumerate(zip(names, parameters))
        if states[name]
    }
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})


def _check_form(saved: Any, path: str | Path) -> None:
    """Raise CheckpointError unless `saved` has the form of an optimiser's ``state_dict()``, with finite numbers."""
    if not isinstance(saved, Mapping):
        raise _unusable(path, f"is a {type(saved).__name__}")
    groups, state = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list) or not isinstance(state, Mapping):
        raise _unusable(path, "has no param_groups or no state")
    for group in groups:
        params = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(params, list) or not all(type(index) is int for index in params):
            raise _unusable(path, "has a param_group that has no list of parameters")
    for index, entries in state.items():
        if not isinstance(entries, Mapping):
            raise _unusable(path, f"of parameter {short(index)} is a {type(entries).__name__}")
        for name, value in entries.items():
            if not (_is_count(value) if name == "step" else _is_plain_state(value)):
                raise _unusable(path, f"has a {short(name)} that is no plain finite number or tensor")


def _is_plain_state(value: Any) -> bool:
    if isinstance(value, Tensor):
        return unusable(value) is None
    return value is None or (isinstance(value, bool | int | float) and math.isfinite(value))


def _is_count(value: Any) -> bool:
    """Whether it can be the number of updates that a parameter has seen, as a number or a tensor."""
    if isinstance(value, Tensor):
        return unusable(value) is None and value.numel() == 1 and value.item() >= 0
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _states_by_name(saved: Mapping[str, Any], order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The state of every parameter in a saved optimiser, {} for one that was never updated."""
    indices, names = [], []
    for group in saved["param_groups"]:
        indices += group["params"]
        if "names" in group or "name" in group:  # the latter in files with a group for every parameter
            names += group.get("names") or [group["name"]]
    names = names or list(order)
    if len(names) != len(indices):
        raise ValueError(f"{len(indices)} parameters with {len(names)} names")
    states = {name: saved["state"].get(index, {}) for name, index in zip(names, indices)}
    return {name: {key: v for key, v in state.items() if v is not None} for name, state in states.items()}


def _fits(value: Any, parameter: Tensor, kept: Any) -> bool:
    """Whether this may be what an optimiser keeps of a parameter: a number, a tensor of its shape or factors of it.

    `kept` is what it keeps of a matrix.
    """
    if not isinstance(value, Tensor) or value.ndim == 0:
        return not isinstance(kept, Tensor) or kept.ndim == 0 or parameter.ndim == 0
    return value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape))


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """`value` in the memory order of its parameter: fused kernels on the CPU pair numbers by their place in memory."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _unusable(path: str | Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the optimiser state {found}",
        "that of the same optimiser for the parameters of this model",
        "resume with the config of that run, or start from its weights with --load-from",
    )


def short(value: Any) -> str:
    """A value from a file in a few words; containers could be endless."""
    return repr(value)[:40] if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"


def _first(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
