"""The losses of a head: one or several, on all pixels or on those that a sampler chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmseg.errors import ConfigError
from mmseg.models.checks import check_classes
from mmseg.models.losses.base import PixelLoss
from mmseg.registry import MODELS, build


class HeadLoss(nn.Module):
    """What ``decode_head.loss_decode`` and ``decode_head.sampler`` of a config describe. It has no weights.

    A single loss is logged as ``loss_seg`` unless it has a `loss_name`; those of a list under their names, and losses
    of one name are added up.

    Args:
        loss_decode: config of a loss, or a list of them.
        num_classes: K of the head.
        ignore_index: label of pixels without a class.
        sampler: config of what weighs the pixels, from the logits and labels.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(
        self,
        loss_decode: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        num_classes: int,
        ignore_index: int = 255,
        sampler: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        several = not isinstance(loss_decode, Mapping)
        configs = {f"loss_decode.{i}": cfg for i, cfg in enumerate(loss_decode)} if several else {"": loss_decode}
        if not configs:
            raise ConfigError("loss_decode = []", "a loss, or a list of some", "write dict(type='CrossEntropyLoss')")
        losses = [build(MODELS, cfg, where or "loss_decode") for where, cfg in configs.items()]
        for loss in losses:
            if isinstance(loss, PixelLoss):
                loss.require_classes(num_classes)
        self.losses, self.num_classes, self.ignore_index = nn.ModuleList(losses), num_classes, ignore_index
        self.names = [_name(loss, several) for loss in losses]
        self.sampler = build(MODELS, sampler, "sampler") if sampler else None

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The losses by name, and the number of correctly classified pixels.

        Args:
            logits: (n, K, h, w), resized bilinearly to the size of the labels.
            labels: (n, H, W) int64.

        Raises:
            DataError: a label that is no class.
        """
        check_classes(labels, self.num_classes, self.ignore_index)
        weight = None if self.sampler is None else self.sampler(logits, labels, self.ignore_index)
        found: dict[str, Tensor] = {}
        for name, loss in zip(self.names, self.losses):
            value, correct = loss(logits, labels, self.ignore_index, weight)
            found[name] = found[name] + value if name in found else value
        return found, correct


def _name(loss: nn.Module, several: bool) -> str:
    """Under which a loss is logged; losses of a user need no name of their own."""
    own = getattr(loss, "own_name", f"loss_{type(loss).__name__.lower()}")
    return getattr(loss, "loss_name", None) or (own if several else "loss_seg")
