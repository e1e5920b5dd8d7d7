"""A model made ready for training: batch norm over all processes, memory format, compilation, gradient exchange."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmseg import distributed

logger = logging.getLogger("mmseg.engine")


def prepare_module(model: nn.Module, cfg: Mapping[str, Any]) -> nn.Module:
    """`model` on this process's device, with the batch norm, memory format and compilation that `cfg` asks for.

    Names and values of the state dict stay as they are. To be called before the optimiser is built.
    """
    model = synchronise_batch_norm(model).to(distributed.device())
    if cfg.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    options = cfg.get("compile")
    if options:
        model.compile(**(options if isinstance(options, Mapping) else {}))  # in place: no prefix on the names
    return model


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Let batch norm use the statistics of all processes; on the CPU, where torch cannot, say so in the log."""
    if distributed.world_size() == 1 or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return model
    if distributed.device().type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    logger.info("CPU processes: batch norm uses the statistics of each process by itself (SyncBatchNorm needs GPUs)")
    return model


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
