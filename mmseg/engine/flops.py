"""Operations and parameters of a model, part by part, by the formulas of its paper.

What runs on a CPU, or from folded weights, is fewer operations in other kernels, most of which a counter does not see.
So the formulas (``tests/reference`` of a checkout) are run on shapes alone, with the weights of the model on PyTorch's
'meta' device, and the matrix products and convolutions in them are counted.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg.engine.benchmark_data import NUM_PROTOTYPES
from mmseg.engine.benchmark_objects import Load, follows_objects, run_reference
from mmseg.engine.benchmark_reference import reference_of
from mmseg.engine.measure import PeakMemory, StageTimer
from mmseg.models.base import VideoModel
from mmseg.structures import Size

# Functions of the formulas, none of which calls another of a file -> the part that they are.
_PARTS = {
    "mit": "backbone",
    "maps_of_streams": "backbone",
    "fuse_stage": "alignment and adaptation",
    "fused_feature": "fused feature",
    "frame_logits": "prediction of each frame",
    "target_logits": "focal mining, prediction",
    "branch_logits": "prototype branch",
    "gather": "affinities, aggregation",
    "classify": "prediction",
    "pixel_decoder": "pixel decoder",
    "frame_decoder": "query decoder",
    "video_decoder": "query decoder",
}
_OF_EVERY_FRAME = {"backbone", "fused feature", "prediction of each frame", "pixel decoder"}
_META = torch.device("meta")
_SMALL = 0.02  # share of a decode head; its smaller parts have no lines of their own


@dataclass(frozen=True)
class Count:
    """What a prediction costs.

    Attributes:
        what: is predicted, and from what.
        size: (height, width) of the frames.
        parts: name -> multiply-additions of all frames of the clip.
        streamed: name -> those of one more frame of a stream, which encodes every frame once.
    """

    what: str
    size: Size
    parts: dict[str, float]
    streamed: dict[str, float]


class OperationCounter(StageTimer):
    """Counts multiply-additions where a :class:`StageTimer` takes the time."""

    def __init__(self) -> None:
        super().__init__(_META)
        self.counting = FlopCounterMode(display=False)

    def _now(self) -> float:
        return self.counting.get_total_flops() / 2  # it counts the addition, too

    def parts(self) -> dict[str, float]:
        """Those of the last step, by its stages."""
        found = self.medians()
        del found["total"]
        return {name: count for name, count in found.items() if count or name != "other"}


def count_operations(model: VideoModel, size: Size, objects: int = 2, memory_frames: int = 12) -> Count:
    """What the predictions of a model cost.

    Args:
        model: in eval mode; afterwards its weights have shapes and no values.
        size: (height, width) of a frame as the network sees it.
        objects, memory_frames: followed objects and frames in memory, for models that follow objects.

    Raises:
        ConfigError: the formulas of this model are not at hand.
    """
    formulas = reference_of(model)
    model.to(_META)
    if follows_objects(model):
        return _count_objects(model, formulas, Load(size, objects, memory_frames))
    return _count_clip(model, formulas, size)


@torch.no_grad()
def _count_clip(model: VideoModel, formulas: ModuleType, size: Size) -> Count:
    """A clip whose frames are all encoded for its predictions, as published tests do it."""
    channels, head = (6 if model.takes_flow else 3), model.decode_head
    frames = getattr(head, "num_clips", 1)
    imgs = torch.empty(1, frames, channels, *size, device=_META)
    context = {}
    if hasattr(head, "store"):
        context["prototypes"] = torch.empty(1, NUM_PROTOTYPES, head.embed_dim, device=_META)
    names = [name for name in _PARTS if hasattr(formulas, name)]
    if "maps_of_streams" in names:
        names.remove("mit")  # which it calls
    counter = OperationCounter()
    with counter.watch(*((formulas, name, _PARTS[name]) for name in names)), counter.counting, counter.step():
        scores = formulas.encode_decode(model, imgs, None, **context)
    predicted = scores.shape[1] if scores.ndim == 5 else 1
    parts = counter.parts()
    shares = {name: frames if name in _OF_EVERY_FRAME else predicted for name in parts}
    what = f"{predicted} frame{'s' * (predicted > 1)} of a clip of {frames}"
    return Count(what, size, parts, {name: count / shares[name] for name, count in parts.items()})


def _count_objects(model: VideoModel, formulas: ModuleType, load: Load) -> Count:
    """A frame that is predicted from a full memory and remembered, as every mem_every-th frame is."""
    counter = OperationCounter()
    watched = ("encode_key", "key encoder"), ("decode", "decoder")
    with (
        counter.watch(*((formulas, *names) for names in watched), (formulas.Bank, "read", "memory reading")),
        counter.counting,
    ):
        run_reference(model, formulas, load, 50, nullcontext(), counter, PeakMemory(_META), 1)
    parts = counter.parts()
    if "value" in parts:
        parts["value encoder"] = parts.pop("value")
    what = f"a frame that is remembered, {load.objects} objects, {load.memory_frames} frames in memory"
    return Count(what, load.size, parts, parts)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a model by its parts; those of the decode head by its own parts, the small ones together."""
    found: dict[str, int] = {}
    for name, part in model.named_children():
        children = list(part.named_children()) if name == "decode_head" else []
        inside = {f"{name}.{child}": _numbers(module) for child, module in children}
        total = _numbers(part)
        large = {child: count for child, count in inside.items() if count > _SMALL * total}
        found.update(large or {name: total})
        if large and (rest := total - sum(large.values())):
            found[f"{name}, the rest"] = rest
    own = _numbers(model) - sum(found.values())
    return {**found, **({"others": own} if own else {})}


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
