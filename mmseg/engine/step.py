"""One update of the weights: the model made ready for it, forward, backward, gradient exchange, clipping, precision."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mmseg import distributed, sections
from mmseg.errors import ConfigError
from mmseg.models.cpu.bfloat16 import mixed_type
from mmseg.models.cpu.pages import keep_pages_on_cpu
from mmseg.models.layers.compiling import require_compiler

logger = logging.getLogger("mmseg.engine")


class Updater:
    """Updates the weights from a few batches.

    Args:
        model: takes a batch and the iteration and returns a dict of scalars; as :func:`wrap` gives it.
        optimizer: holds the model's parameters.
        device: device of the model.
        cfg: ``optimizer_config.grad_clip`` (arguments of ``clip_grad_norm_``) and ``amp`` (``dtype``) are read.

    Raises:
        ConfigError: a value cannot be.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, device: torch.device, cfg: Mapping[str, Any]) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        keep_pages_on_cpu(device)  # every step asks for the same memory
        optimizer_config = sections.read("optimizer_config", cfg.get("optimizer_config"))
        self.grad_clip = optimizer_config.grad_clip if optimizer_config else None
        self.dtype = amp_dtype(cfg.get("amp"), device)
        # float16 gradients underflow unless the loss is scaled up; bfloat16 has the range of float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def __call__(self, batches: Sequence[Mapping[str, Any]], iteration: int = 0) -> dict[str, Tensor]:
        """One update with the mean gradient of `batches`.

        Batch norm sees the batches one by one: its statistics are those of ``samples_per_gpu`` clips.

        Args:
            batches: of this process.
            iteration: number of the update, counted from 0; losses may depend on it.

        Returns:
            Every entry that the model returned, the sum of those named "loss" as ``loss`` (means over the batches), and
            ``grad_norm`` (before clipping) if gradients are clipped; scalars that stay on the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            is_last = number == len(batches) - 1
            for name, value in self._backward(to_device(batch, self.device), iteration, len(batches), is_last).items():
                totals[name] = totals[name] + value if name in totals else value
        if self.grad_clip:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            totals["grad_norm"] = nn.utils.clip_grad_norm_(parameters, **self.grad_clip.model_dump())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return totals

    def _backward(self, batch: Mapping[str, Any], iteration: int, count: int, is_last: bool) -> dict[str, Tensor]:
        """Add the gradient of one of `count` batches; returns its share of the mean values."""
        exchanges = isinstance(self.model, DistributedDataParallel)
        local = self.model.no_sync() if exchanges and not is_last else contextlib.nullcontext()
        with local:  # gradients are exchanged once per update
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                values = {name: value.mean() / count for name, value in self.model(batch, iteration).items()}
                loss = sum(value for name, value in values.items() if "loss" in name)
            self.scaler.scale(loss).backward()
        return {name: value.detach() for name, value in {**values, "loss": loss}.items()}


# --- before the first update ------------------------------------------------------------------------------------------


def train_only(model: nn.Module, part: str | None) -> None:
    """Train nothing but the parameters with `part` in their names; None trains all.

    The others stay in training mode, as in the official fine-tuning of THE-Mask: their drop path goes on.

    Raises:
        ConfigError: no name has this part.
    """
    if part is None:
        return
    trained = [name for name, _ in model.named_parameters() if part in name]
    if not trained:
        raise ConfigError(
            f"fine-tuning trains the parameters with {part!r} in their names, and there are none",
            f"a model with such parameters, not {type(model).__name__}",
            "use the config of the method that is fine-tuned",
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in name)
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    logger.info("fine-tuning: %d parameters with %r in their names are trained, %d frozen", len(trained), part, frozen)


def prepare_module(model: nn.Module, cfg: Mapping[str, Any]) -> nn.Module:
    """`model` on this process's device, with the batch norm, memory format and compilation that `cfg` asks for.

    Names and values of the state dict stay as they are. To be called before the optimiser is built.
    """
    device = distributed.device()
    prefixes = getattr(model, "synchronised_norms", ("",))
    if distributed.world_size() > 1 and (norms := norms_to_synchronise(model, prefixes)):
        if device.type == "cuda":
            synchronise(model, norms)
        else:
            logger.info(
                "CPU processes: batch norm uses the statistics of each process by itself (SyncBatchNorm needs GPUs)"
            )
    model = model.to(device)
    if cfg.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    options = cfg.get("compile")
    if options:
        if not isinstance(options, Mapping) or options.get("backend", "inductor") == "inductor":
            require_compiler(device)
        # in place: no prefix on the names. Whole models take names of videos and the iteration, which change
        compile_parts = getattr(model, "compile_parts", model.compile)
        compile_parts(**(options if isinstance(options, Mapping) else {}))
    return model


def norms_to_synchronise(model: nn.Module, prefixes: Sequence[str]) -> list[str]:
    """Names of the batch norms that are to take the statistics of all processes.

    Args:
        prefixes: of their names, as whole parts between dots; "" is the prefix of all.

    Returns:
        Those under the prefixes whose weights are trained; a frozen norm keeps its statistics.
    """

    def is_under(name: str) -> bool:
        return any(prefix == "" or f"{name}.".startswith(f"{prefix.rstrip('.')}.") for prefix in prefixes)

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and is_under(name)
        and (not module.affine or module.weight.requires_grad or module.bias.requires_grad)
    ]


def synchronise(model: nn.Module, norms: Sequence[str]) -> None:
    """Replace batch norms, given by their names, by synchronised ones with the same weights and statistics."""
    for name in norms:
        parent, _, child = name.rpartition(".")
        norm = nn.SyncBatchNorm.convert_sync_batchnorm(model.get_submodule(name))
        setattr(model.get_submodule(parent), child, norm)


def wrap(model: nn.Module, find_unused_parameters: bool = True) -> nn.Module:
    """`model` with gradients averaged over the processes; unchanged in a single process.

    Buffers are not broadcast at each step (they are once, here): synchronised batch norm keeps them equal, and the main
    process's are the ones saved.
    """
    if distributed.world_size() == 1:
        return model
    # torch 2.13 renamed the argument
    parameters = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    device = distributed.device()
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        **{buffers: False},
    )


def accumulation_steps(cfg: Mapping[str, Any]) -> int:
    """How many batches of ``samples_per_gpu`` clips one update sees, from ``gradient_accumulation`` or
    ``optimizer_config.cumulative_iters``.

    Raises:
        ConfigError: the two keys disagree, or a value cannot be.
    """
    own = sections.read("gradient_accumulation", cfg.get("gradient_accumulation"))
    optimizer_config = sections.read("optimizer_config", cfg.get("optimizer_config"))
    other = optimizer_config.cumulative_iters if optimizer_config else None
    if own and other and own != other:
        raise ConfigError(
            f"gradient_accumulation = {own} and optimizer_config.cumulative_iters = {other}",
            "one of them",
            "remove the other",
        )
    return own or other or 1


def amp_dtype(amp: Mapping[str, Any] | None, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision on a device that a config's ``amp`` asks for; None is float32."""
    section = sections.read("amp", amp or None)
    if section is None:
        return None
    return mixed_type(getattr(torch, section.dtype), device)


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with its tensors on `device`, those in lists and dicts as well; anything else as it is.

    Copies from pinned memory, which the loader takes for GPUs, run while the GPU computes.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list):
        return [to_device(value, device) for value in batch]
    return batch
