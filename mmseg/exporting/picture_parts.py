"""What lies around a network as graphs of their own: a picture becomes its input, its logits become a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.datasets.transforms import TestPipeline
from mmseg.datasets.transforms.colour import Normalize
from mmseg.errors import ConfigError
from mmseg.models.exportable import Part
from mmseg.structures import Flipped, Padded, Resized, Size, Step

_HALF_UP = 0.5 + 1e-3  # rounds as OpenCV does; the halves, of which there are many, whatever the last digit says


@dataclass(frozen=True)
class Pictures:
    """How frames of one size become the network's input.

    Attributes:
        frame: (height, width) of a frame.
        network: (h, w) of the input.
        steps: what is done to the frame on the way, in order.
        mean, std: of the channels after the reordering, in grey levels.
        to_rgb: the channels of the frame, which are BGR, are reversed.
    """

    frame: Size
    network: Size
    steps: tuple[Step, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool

    @classmethod
    def of(cls, pipeline: TestPipeline, frame: Size, network: Size, steps: Sequence[Step]) -> Pictures:
        """Those of a test pipeline, which has made such a view of a frame.

        Raises:
            ConfigError: it does other things than resizing, padding and normalising.
        """
        norms = [step for step in pipeline.transforms if isinstance(step, Normalize)]
        if len(norms) != 1 or any(isinstance(step, Flipped) for step in steps):
            raise ConfigError(
                "data.test.pipeline with other steps than resizing, padding and one Normalize",
                "these for an export",
                "export with a plain test pipeline",
            )
        norm = norms[0]
        return cls(frame, network, tuple(steps), tuple(norm.mean.tolist()), tuple(norm.std.tolist()), norm.to_rgb)

    def sizes(self) -> list[tuple[Step, Size]]:
        """Every step with the size after it."""
        after = [*(step.before for step in self.steps[1:]), self.network]
        return list(zip(self.steps, after))

    def record(self) -> dict[str, Any]:
        """As plain data, for ``model.json``."""
        steps = [{"pad" if isinstance(step, Padded) else "resize": list(size)} for step, size in self.sizes()]
        return {
            "frame": list(self.frame), "size": list(self.network), "steps": steps,
            "mean": list(self.mean), "std": list(self.std), "to_rgb": self.to_rgb,
        }  # fmt: skip

    def parts(self, channels: int, logits: Sequence[int]) -> dict[str, Part]:
        """``prepare``, from a frame (1, H, W, C) uint8 BGR to the input; ``labels``, from logits to a map (1, H, W).

        Args:
            channels: C; of 6 the first three are the frame, the others the picture of its flow.
            logits: their shape (1, K, h, w).
        """
        frame = torch.zeros(1, *self.frame, channels, dtype=torch.uint8)
        return {
            "prepare": Part(_Prepare(self, channels), {"frame": frame}, ("img",)),
            "labels": Part(_Labels(self), {"logits": torch.zeros(*logits)}, ("labels",)),
        }


class _Prepare(nn.Module):
    def __init__(self, pictures: Pictures, channels: int) -> None:
        super().__init__()
        self.pictures = pictures
        times = channels // len(pictures.mean)
        self.order = [3 * k + (2 - c if pictures.to_rgb else c) for k in range(times) for c in range(3)]
        self.register_buffer("mean", torch.tensor(pictures.mean * times).view(1, -1, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(pictures.std * times, dtype=torch.float64).view(1, -1, 1, 1))
        self.scale = self.scale.float()

    def forward(self, frame: Tensor) -> Tensor:
        """(1, H, W, C) uint8 -> (1, C, h, w) float32."""
        x = frame.permute(0, 3, 1, 2).float()
        x = torch.cat([x[:, c : c + 1] for c in self.order], 1)
        steps = self.pictures.sizes()
        for step, size in steps:
            if isinstance(step, Resized) and size != step.before:
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
                x = (x + _HALF_UP).floor()  # pictures have whole grey levels
        x = (x - self.mean) * self.scale
        for step, (height, width) in steps:
            if isinstance(step, Padded):
                x = F.pad(
                    x, (step.left, width - step.before[1] - step.left, step.top, height - step.before[0] - step.top)
                )
        return x


class _Labels(nn.Module):
    def __init__(self, pictures: Pictures) -> None:
        super().__init__()
        self.pictures = pictures

    def forward(self, logits: Tensor) -> Tensor:
        """(1, K, h, w) -> (1, H, W) uint8."""
        x = F.interpolate(logits, size=self.pictures.network, mode="bilinear", align_corners=False)
        for step in self.pictures.steps:
            if isinstance(step, Padded):
                x = x[:, :, step.top : step.top + step.before[0], step.left : step.left + step.before[1]]
        if tuple(x.shape[2:]) != self.pictures.frame:
            x = F.interpolate(x, size=self.pictures.frame, mode="bilinear", align_corners=False)
        return x.argmax(1).to(torch.uint8)
