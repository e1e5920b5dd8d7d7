"""What all losses of this folder share: their keys, and the contract with the heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from mmseg.errors import ConfigError, DataError
from mmseg.files import read_bytes, read_json
from mmseg.values import NonNegativeFloat


def _is_loss(name: str) -> str:
    if not name.startswith("loss_"):
        raise ValueError("a name that starts with loss_, by which the entries of a total are known")
    return name


LossName = Annotated[str, AfterValidator(_is_loss)]
ClassWeight = Sequence[NonNegativeFloat] | str | None


class PixelLoss(nn.Module):
    """A loss of logits that are coarser than the labels.

    Args:
        loss_weight: factor of the loss.
        class_weight: K factors of the classes, or a file that holds them (``.npy``, or a list in ``.json``).
        loss_name: under which it is logged; default: ``loss_seg`` if it is the head's only loss, else its own.
        reduction: only ``'mean'`` exists.

    Raises:
        ConfigError: a file of class weights that cannot be used.
    """

    own_name = "loss_other"
    per_class = ("class_weight",)  # attributes that hold a number for every class, or None

    def __init__(
        self,
        loss_weight: NonNegativeFloat = 1.0,
        class_weight: ClassWeight = None,
        loss_name: LossName | None = None,
        reduction: Literal["mean"] = "mean",
    ) -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name
        self.class_weight = read_class_weight(class_weight) if isinstance(class_weight, str) else class_weight

    def forward(
        self, logits: Tensor, labels: Tensor, ignore_index: int = 255, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and number of correctly classified pixels.

        Args:
            logits: (n, K, h, w), resized bilinearly to the size of the labels.
            labels: (n, H, W) int64; pixels of `ignore_index` contribute nothing.
            weight: (n, H, W) of every pixel, from a sampler.
        """
        raise NotImplementedError

    def require_classes(self, num_classes: int) -> None:
        """Raise ConfigError unless what is given for each class is given for `num_classes`."""
        for key in self.per_class:
            numbers = getattr(self, key)
            if isinstance(numbers, Sequence) and len(numbers) != num_classes:
                raise ConfigError(
                    f"loss_decode.{key} with {len(numbers)} numbers for a head with num_classes={num_classes}",
                    f"{num_classes} numbers, one for each class",
                    "give a number for each class, in the order of the classes",
                )


def of_labels(numbers: Sequence[float], labels: Tensor, like: Tensor) -> Tensor:
    """The number of every label, in the type of `like`; labels without one (ignored ones) get that of class 0."""
    table = torch.as_tensor(numbers, dtype=like.dtype, device=like.device)
    return table[torch.where(labels < len(table), labels, 0)]


def read_class_weight(path: str) -> list[float]:
    """The class weights that a file holds.

    Raises:
        ConfigError: the file cannot be read, or holds anything but a list of numbers that are not negative.
    """
    try:
        if Path(path).suffix == ".npy":
            read_bytes(path)  # refuses what is no regular file
            numbers = np.load(path, allow_pickle=False)
        else:
            numbers = np.asarray(read_json(path))
        weights = [float(number) for number in numbers] if numbers.ndim == 1 else []
    except (DataError, OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"loss_decode.class_weight = {path!r}: {getattr(error, 'found', error)}",
            "a list of numbers, or a .npy or .json file of one",
            "write the numbers into the config, or fix the file",
        ) from error
    if not weights or not all(0 <= number < float("inf") for number in weights):
        raise ConfigError(
            f"loss_decode.class_weight = {path!r} holds something else than a list of numbers",
            "numbers that are finite and not negative, one for each class",
            "fix the file",
        )
    return weights
