"""What the benchmark feeds to a model: random videos as files, training batches, prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.transforms import TestPipeline
from mmseg.engine.measure import used_bytes
from mmseg.errors import ConfigError
from mmseg.images import read_frame
from mmseg.models.base import Segmentor
from mmseg.models.decode_heads.cffm.prototype_files import PrototypeStore, prototype_file, write_prototypes
from mmseg.structures import Frame, Result, Size
from mmseg.writing.base import ResultWriter

VIDEO = "benchmark"
NUM_PROTOTYPES = 100
_NUM_SHOWN = 8  # classes of a training clip, which some losses cost time for


def training_batch(model: Segmentor, clips: int, size: Size, device: torch.device) -> dict[str, Any]:
    """Random clips with random labels of a few classes, an eighth of them ignored."""
    frames, channels = (1, 6) if model.takes_flow else (getattr(model.decode_head, "num_clips", 4), 3)
    generator = torch.Generator().manual_seed(0)
    imgs = torch.randn(clips, frames, channels, *size, generator=generator)
    shown = min(_NUM_SHOWN, model.num_classes)
    labels = torch.randint(0, shown, (clips, frames, 1, *size), generator=generator)
    labels[..., : size[0] // 8, :] = 255
    metas = [dict(video=VIDEO, filename=f"{VIDEO}/{i}.jpg") for i in range(clips)]
    return {"img": imgs.to(device), "gt_semantic_seg": labels.to(device), "img_metas": metas}


def provide_prototypes(model: Segmentor, folder: Path) -> None:
    """Random prototypes for a head that wants a file of them."""
    head = getattr(model, "decode_head", None)
    if isinstance(getattr(head, "store", None), PrototypeStore):
        write_prototypes(prototype_file(folder, VIDEO), torch.randn(NUM_PROTOTYPES, head.embed_dim))
        head.save_path, head.store = str(folder), PrototypeStore(folder, head.embed_dim)


def frame_pipeline(model: Segmentor, size: tuple[int, int]) -> TestPipeline:
    """The config's test pipeline with frames of `size` left at their size (up to the divisor)."""
    steps = [dict(step) for step in model.cfg.data.test.pipeline]
    for step in steps:
        if step["type"] == "MultiScaleFlipAug":
            step.update(img_scale=(size[1], size[0]), img_ratios=None, flip=False)
            return TestPipeline(steps)
    raise ConfigError("data.test.pipeline has no MultiScaleFlipAug", "one around the transforms", "add it")


def read(model: Segmentor, number: int, path: str) -> Frame:
    """A frame, for models that look at optical flow with another picture in its place."""
    image = read_frame(path)
    return Frame(number, str(number), image, flow=read_frame(path) if model.takes_flow else None)


class FramesWithFlow(VideoDataset):
    """Frames that stand for their own optical flow."""

    def frame(self, video_index: int, number: int) -> Frame:
        """See :meth:`VideoDataset.frame`."""
        frame = super().frame(video_index, number)
        frame.flow = frame.image
        return frame


def write_frames(folder: Path, size: tuple[int, int], count: int = 4) -> list[str]:
    """Smooth random pictures as JPEG, about as large as photographs."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i:05d}.jpg") for i in range(count)]
    for path in paths:
        coarse = rng.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
        cv2.imwrite(path, cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))
    return paths


def write_masks(folder: Path, size: tuple[int, int], num_classes: int, count: int = 4) -> list[str]:
    """Random raw labels in patches, as PNG."""
    rng = np.random.default_rng(1)
    paths = [str(folder / f"{i:05d}.png") for i in range(count)]
    for path in paths:
        coarse = rng.integers(0, num_classes + 1, (size[0] // 32 + 1, size[1] // 32 + 1), np.uint8)
        cv2.imwrite(path, cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))
    return paths


class MemoryProbe(ResultWriter):
    """Notes the memory in use after certain frames."""

    def __init__(self, device: torch.device, numbers: Sequence[int]) -> None:
        self.device, self.numbers = device, set(numbers)
        self.seen: dict[int, int] = {}

    def add(self, result: Result) -> None:
        if result.frame.number in self.numbers:
            self.seen[result.frame.number] = used_bytes(self.device)
