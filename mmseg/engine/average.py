"""An exponential moving average of the weights, which is evaluated and saved in their place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmseg.errors import CheckpointError
from mmseg.sections import MovingAverage
from mmseg.weights import check_values

logger = logging.getLogger("mmseg.engine")

TRAINED = "trained_weights"  # what a checkpoint calls the weights that are trained, where its weights are averages


class AveragedWeights:
    """The average of a model's parameters over the iterations. Statistics of batch norm stay those of the model.

    Every process computes it by itself, from weights that are equal in all of them.

    Args:
        model: the unwrapped model, on its device, with the weights that the average starts from.
        section: see :class:`mmseg.sections.MovingAverage`.
    """

    def __init__(self, model: nn.Module, section: MovingAverage) -> None:
        self.section = section
        self.parameters = dict(model.named_parameters())
        self.averages = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the weights after update `iteration`, counted from 0."""
        section = self.section
        if iteration % section.interval:
            return
        share = 1 - (1 - section.momentum) ** section.interval
        share = min(share, (1 + iteration) / (section.warm_up + iteration))
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the model has the averages as its weights, and :attr:`averages` holds its own."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            self.averages[name], parameter.data = parameter.data, self.averages[name]


def restore_weights(
    model: nn.Module, checkpoint: Mapping[str, Any], average: AveragedWeights | None, path: str | Path
) -> None:
    """Go on from a checkpoint whose weights, which `model` has been given, may be averages.

    Args:
        model: gets the weights that were being trained.
        average: gets the averages; it starts from the weights where the checkpoint has none.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: the trained weights in it are not those of this model.
    """
    own = dict(model.named_parameters())
    trained = checkpoint.get(TRAINED, {name: parameter.detach().clone() for name, parameter in own.items()})
    fits = isinstance(trained, Mapping) and trained.keys() == own.keys()
    if fits:
        check_values(path, trained, own)
    if not fits or any(trained[name].shape != parameter.shape for name, parameter in own.items()):
        raise CheckpointError(
            f"{path}: its {TRAINED} are not those of the parameters of this model",
            "a checkpoint as a training run writes it",
            "resume from another one, or start from its weights with --load-from",
        )
    if TRAINED in checkpoint and average is None:
        logger.warning("%s holds averaged weights, and this run averages none: it goes on with those trained", path)
    with torch.no_grad():
        for name, parameter in own.items():
            if average is not None:
                average.averages[name].copy_(parameter)
            parameter.copy_(trained[name])
