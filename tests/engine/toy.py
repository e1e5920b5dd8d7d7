"""A model and a data set that are small enough to be trained in every test, registered under names of their own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmseg.errors import DataError
from mmseg.models.base import VideoModel
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import Progress


@MODELS.register_module()
class ToySegmentor(VideoModel):
    """A classifier per pixel, with everything that makes resuming hard: dropout, batch norm, an unused parameter."""

    finetune_trains = "head"

    def __init__(self, num_classes: int = 3, dropout: float = 0.3, batch_norm: bool = True) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(8, num_classes, 1)
        self.unused = nn.Linear(2, 2)

    def loss(self, batch: dict, iteration: int = 0) -> dict[str, Tensor]:
        x = batch["img"].flatten(0, 1)  # (B*T, 3, H, W)
        logits = self.head(self.dropout(F.relu(self.norm(self.conv(x)))))
        labels = batch["gt_semantic_seg"].flatten(0, 1)[:, 0]
        accuracy = 100 * (logits.argmax(1) == labels).float().mean()
        return {"decode.loss_seg": F.cross_entropy(logits, labels), "decode.acc_seg": accuracy}

    def compile_parts(self, **options: object) -> None:
        for part in (self.conv, self.head):
            part.compile(**options)


@DATASETS.register_module()
class ToyClips:
    """Noise whose class is the strongest colour.

    Args:
        length: number of videos.
        nan: images are not numbers; with `nan_at` only those of this video.
        fails_at: the clip of this video cannot be made.
    """

    CLASSES, PALETTE, num_classes, ignore_index = ("r", "g", "b"), [[255, 0, 0], [0, 255, 0], [0, 0, 255]], 3, 255

    def __init__(
        self, length: int = 5, nan: bool = False, nan_at: int | None = None, fails_at: int | None = None,
        test_mode: bool = False,
    ) -> None:  # fmt: skip
        self.length, self.nan, self.nan_at, self.fails_at = length, nan, nan_at, fails_at
        self.seen: list[Progress | None] = []

    def __len__(self) -> int:
        return self.length

    def clip(self, index: int, rng: np.random.Generator, progress: Progress | None = None) -> dict:
        self.seen.append(progress)
        if index == self.fails_at:
            raise DataError(f"video {index} cannot be read", "a readable one", "mend it")
        img = torch.from_numpy(rng.normal(index / 10, 1, (2, 3, 6, 6)).astype(np.float32))  # (T, 3, H, W)
        label = img.argmax(1, keepdim=True)
        if self.nan or index == self.nan_at:
            img = img * float("nan")
        return {"img": img, "gt_semantic_seg": label, "img_metas": {"video": f"video {index}"}}

    def __getitem__(self, key: tuple) -> dict:
        index, seed = key
        return self.clip(index, np.random.default_rng(seed))


def batch_of(clips: int, seed: int = 0) -> dict:
    """A batch as the loader makes it."""
    items = [ToyClips()[i, (seed, i)] for i in range(clips)]
    return {
        "img": torch.stack([item["img"] for item in items]),
        "gt_semantic_seg": torch.stack([item["gt_semantic_seg"] for item in items]),
        "img_metas": [item["img_metas"] for item in items],
    }


CONFIG = """
custom_imports = dict(imports=["tests.engine.toy"])
model = dict(type="ToySegmentor")
data = dict(samples_per_gpu=2, workers_per_gpu=0, train=dict(type="ToyClips"))
optimizer = dict(type="AdamW", lr=0.01, paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))))
optimizer_config = dict()
lr_config = dict(policy="poly", warmup="linear", warmup_iters=3, warmup_ratio=1e-6, power=1.0, by_epoch=False)
runner = dict(type="IterBasedRunner", max_iters=6)
checkpoint_config = dict(by_epoch=False, interval=2)
evaluation = dict(interval=3, metric="mIoU")
log_config = dict(interval=2)
"""
