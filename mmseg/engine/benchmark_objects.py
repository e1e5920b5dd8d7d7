"""Speed of models that follow objects: a frame of a stream with a full memory, and the same by the formulas."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg.engine.measure import PeakMemory, StageTimer
from mmseg.mmengine_names import Config
from mmseg.models.base import VideoModel
from mmseg.models.layers.padding import centred_margins, pad
from mmseg.structures import Size, View

_NOISE = 0.3  # of the keys of a memory frame, by which it differs from others


@dataclass(frozen=True)
class Load:
    """What is followed.

    Attributes:
        size: (height, width) of the frames.
        objects: that come with the first frame.
        memory_frames: in memory.
    """

    size: Size
    objects: int
    memory_frames: int


def follows_objects(model: VideoModel) -> bool:
    """Whether a model has objects instead of classes."""
    return model.num_classes is None


def config_follows_objects(cfg: Config) -> bool:
    """The same of the model of a config that is not built yet: such a model is a network without a decode head."""
    return "decode_head" not in cfg.model


def random_frames(size: Size, device: torch.device, count: int = 4) -> Tensor:
    """Smooth frames (count, 3, H, W) as the network sees them."""
    coarse = torch.randn(count, 3, -(-size[0] // 16), -(-size[1] // 16), generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=size, mode="bilinear").to(device)


def random_mask(load: Load, device: torch.device) -> Tensor:
    """Objects 1, 2, ... (H, W) beside each other, background left and right of them."""
    columns = torch.arange(load.size[1], device=device) * (load.objects + 2) // load.size[1]
    return torch.where(columns > load.objects, 0, columns).expand(load.size)


@torch.no_grad()
def run_stream(
    model: VideoModel,
    load: Load,
    settings: dict[str, Any],
    autocast: Any,
    timer: StageTimer,
    memory: PeakMemory,
    n: int,
) -> None:
    """Time `n` frames of a stream which remembers every one and keeps `memory_frames` of them."""
    frames = random_frames(load.size, timer.device)
    memory.start()  # before that of the model fills
    stream = model.stream(**{**settings, "mem_every": 1, "max_memory_frames": load.memory_frames})
    watched = (model, "encode_key", "key"), (stream, "_remember", "value"), (stream, "_readout", "memory reading")
    with timer.watch(*watched, (model.decoder, "forward", "decode")), autocast:
        for number in range(load.memory_frames + 1 + n):
            if number == load.memory_frames + 1:
                timer.clear()
            inputs = {"img": frames[number % len(frames)]}
            if number == 0:
                inputs["given"] = random_mask(load, timer.device)
            with timer.step():
                list(stream.push(View(number, inputs)))


@torch.no_grad()
def run_reference(
    model: VideoModel,
    reference: ModuleType,
    load: Load,
    top_k: int,
    autocast: Any,
    timer: StageTimer,
    memory: PeakMemory,
    n: int,
) -> None:
    """Time the same by the formulas, denormal numbers as they fall: that these are avoided is a part of the speed."""
    torch.set_flush_denormal(False)
    margins = centred_margins(*load.size, 16)
    frames, mask = pad(random_frames(load.size, timer.device), margins), random_mask(load, timer.device)
    masks = pad(torch.stack([mask == number for number in range(1, load.objects + 1)]).float(), margins)
    memory.start()
    with autocast:
        key, _, f16, *_ = reference.encode_key(model, frames[:1])
        values, bank = reference.encode_value(model, frames[:1], f16, masks), reference.Bank()
        for _ in range(load.memory_frames):
            bank.add(key + _NOISE * torch.randn_like(key), values, False)
        for number in range(1 + n):
            if number == 1:
                timer.clear()
            frame = frames[number % len(frames)][None]
            with timer.step():
                soft, _, f16 = reference.predict(model, bank, frame, top_k)
                soft = reference.aggregation_logits(soft).softmax(0)
                with timer.stage("value"):
                    reference.encode_value(model, frame, f16, soft[1:])


def training_clips(model: VideoModel, clips: int, size: Size, device: torch.device) -> dict[str, Tensor]:
    """Random clips of three frames with all the objects that a clip may have."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, model.num_objects + 1, (clips, 3, 1, size[0] // 16, size[1] // 16), generator=generator)
    labels = labels.repeat_interleave(16, -1).repeat_interleave(16, -2)
    imgs = torch.randn(clips, 3, 3, *labels.shape[-2:], generator=generator)
    batch = {"img": imgs, "gt_semantic_seg": labels, "selector": torch.ones(clips, 2)}
    return {name: value.to(device) for name, value in batch.items()}
