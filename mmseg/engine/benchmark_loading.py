"""How fast training data come: batches of a config's data, made in this process or by workers."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from mmseg.config import load_config, require, with_data_sets_of_method
from mmseg.datasets import build_dataset, build_train_loader
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.wrappers import Wrapper
from mmseg.engine.benchmark_job import Job, Row, setting
from mmseg.engine.benchmark_reference import reference_pipeline
from mmseg.errors import ConfigError
from mmseg.structures import Progress

WORKERS = (0, 1, 2)
_PIPELINE = ["LoadFrames", "LoadLabels", "Resize", "RandomCrop", "RandomFlip", "PhotoMetricDistortion", "Normalize",
             "Pad", "PackClip", "Collect"]  # fmt: skip


def measure_loading(job: Job) -> list[Row]:
    """Seconds per batch of ``data.train`` of the config, over `repeats` batches, a row for each number of workers.

    Nothing computes meanwhile: what comes is what workers can make. The reference makes the same clips by the same
    workers.

    Raises:
        SegError: the data cannot be read, or the reference knows no such data.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    cfg = with_data_sets_of_method(load_config(job.config, job.options))
    require(cfg, "data.train")
    dataset = build_dataset(cfg.data.train, where="data.train")
    if job.reference:
        dataset = LiteralClips(dataset)
    clips = job.clips or cfg.data.get("samples_per_gpu", 2)
    return [_row(job, dataset, clips, workers) for workers in WORKERS]


class LiteralClips:
    """The clips of a data set, made operation by operation on whole frames (``tests/reference``).

    Raises:
        ConfigError: a pipeline other than that of VSPW clips.
    """

    def __init__(self, dataset: VideoDataset | Wrapper) -> None:
        self.dataset, self.reference = dataset, reference_pipeline()
        for part in getattr(dataset, "parts", [dataset]):
            names = [type(transform).__name__ for transform in part.pipeline.transforms]
            if names != _PIPELINE or type(part).clip is not VideoDataset.clip:
                raise ConfigError(
                    f"--mode data --against-reference for a {type(part).__name__} with the transforms {names}",
                    f"clips of one video, with {_PIPELINE}",
                    "leave --against-reference out",
                )

    def __len__(self) -> int:
        return len(self.dataset)

    def clip(self, index: int, rng: np.random.Generator, progress: Any = None) -> dict[str, Any]:
        """See :meth:`VideoDataset.clip`."""
        part = self.dataset
        while isinstance(part, Wrapper):
            part, index = part.locate(index)
        video = part.videos[index]
        numbers = part.draw_clip(len(video.frames), rng, video.labelled)
        paths = ([files[i] for i in numbers] for files in (video.frames, video.labels))
        return self.reference.clip(*paths, part.pipeline.transforms, rng)


def _row(job: Job, dataset: Any, clips: int, workers: int) -> Row:
    device = torch.device("cpu")
    start_of_training = partial(Progress.at, num_items=len(dataset), batch_size=clips, max_iters=len(dataset))
    with build_train_loader(dataset, clips, workers, seed=0, device=device, progress=start_of_training) as loader:
        for _ in range(4 + 2 * workers):  # memory is mapped, workers start, and make some ahead
            batch = next(loader)
        start = time.perf_counter()
        for _ in range(job.repeats):
            next(loader)
        seconds = (time.perf_counter() - start) / job.repeats
    images = clips * (batch["img"].shape[1] if batch["img"].ndim == 5 else 1)
    return {
        **setting(job, device),
        "what": f"batches of {clips} clips, {images} images",
        "workers": workers,
        "size": list(batch["img"].shape[-2:]),
        "seconds": seconds,
        "clips": clips,
        "images": images,
    }
