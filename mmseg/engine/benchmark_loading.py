"""How fast training data come: batches of a config's data, made in this process or by workers."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from mmseg.config import load_config, require, with_data_sets_of_method
from mmseg.datasets import build_dataset, build_train_loader
from mmseg.engine.benchmark import Job, Row, setting
from mmseg.structures import Progress

WORKERS = (0, 1, 2)


def measure_loading(job: Job) -> list[Row]:
    """Seconds per batch of ``data.train`` of the config, over `repeats` batches, a row for each number of workers.

    Nothing computes meanwhile: what comes is what workers can make.

    Raises:
        SegError: the data cannot be read.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    cfg = with_data_sets_of_method(load_config(job.config, job.options))
    require(cfg, "data.train")
    dataset = build_dataset(cfg.data.train, where="data.train")
    clips = job.clips or cfg.data.get("samples_per_gpu", 2)
    return [_row(job, dataset, clips, workers) for workers in WORKERS]


def _row(job: Job, dataset: Any, clips: int, workers: int) -> Row:
    device = torch.device("cpu")
    start_of_training = partial(Progress.at, num_items=len(dataset), batch_size=clips, max_iters=len(dataset))
    with build_train_loader(dataset, clips, workers, seed=0, device=device, progress=start_of_training) as loader:
        for _ in range(1 + 2 * workers):  # workers start, and make some ahead
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
