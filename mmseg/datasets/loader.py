"""Batches of training clips, made by worker processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from mmseg.datasets.base import VideoDataset
from mmseg.datasets.sampler import BatchSampler, PositionSampler, SampleKey
from mmseg.datasets.wrappers import RepeatDataset
from mmseg.errors import ConfigError, DataError, SegError


class TrainLoader(Iterator[dict[str, Any]]):
    """Endless iterator over the batches of one process; see :func:`build_train_loader`."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._batches: Iterator[Any] | None = None

    def __next__(self) -> dict[str, Any]:
        """The next batch: ``img`` (B, T, 3, H, W), ``gt_semantic_seg`` (B, T, 1, H, W), ``img_metas`` list of B dicts.

        Whatever else the samples hold is joined by :func:`collate`.

        Raises:
            SegError: a sample could not be made; raised as it was in the worker, and the workers are stopped.
        """
        if self._batches is None:
            self._batches = iter(self._loader)
        batch = next(self._batches)
        if isinstance(batch, SegError):
            self.close()
            raise batch
        return batch

    def close(self) -> None:
        """Stop the workers. The next batch would start from the first position again."""
        self._batches = None


def build_train_loader(
    dataset: VideoDataset | RepeatDataset,
    samples_per_gpu: int,
    workers_per_gpu: int,
    seed: int,
    start_iter: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TrainLoader:
    """The endless batches of one process.

    Batches are a function of (seed, iteration) and of how the samples are shared out, never of the number of workers
    or of where the run started. Worker processes start with the first batch.

    Args:
        dataset: in training mode.
        samples_per_gpu: clips per batch and process.
        workers_per_gpu: worker processes; 0 makes the batches in this process.
        seed: not negative.
        start_iter: the first batch.
        rank: of this process.
        world_size: number of processes.

    Raises:
        ConfigError: a number out of range.
    """
    limits = dict(samples_per_gpu=(samples_per_gpu, 1), workers_per_gpu=(workers_per_gpu, 0), seed=(seed, 0))
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} = {value!r}", f"an integer of at least {least}", f"fix {name}")
    order = PositionSampler(len(dataset), seed)
    loader = DataLoader(
        _Samples(dataset),
        batch_sampler=BatchSampler(order, samples_per_gpu, start_iter, rank, world_size),
        num_workers=workers_per_gpu,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_init_worker,
        # Forked workers share the lists of files and start at once. They never touch the GPU.
        multiprocessing_context="fork" if workers_per_gpu and sys.platform == "linux" else None,
        # DataLoader draws a seed that nothing here uses; not from the global generator, which would change results.
        generator=torch.Generator(),
    )
    return TrainLoader(loader)


def collate(samples: Sequence[dict[str, Any] | SegError]) -> dict[str, Any] | SegError:
    """Join samples into a batch: tensors get a batch axis, anything else (``img_metas``, texts, numbers) is listed.

    An error among the samples takes the place of the batch, as does one that the samples make together: tensors of
    different shapes, or entries that only some of the samples have.
    """
    for sample in samples:
        if isinstance(sample, SegError):
            return sample
    batch: dict[str, Any] = {}
    for key in dict.fromkeys(key for sample in samples for key in sample):
        values = [sample[key] for sample in samples if key in sample]
        if len(values) < len(samples):
            return DataError(
                f"{key} in {len(values)} of the {len(samples)} samples of a batch ({_first_name(samples)}, ...)",
                "the same entries in every sample",
                "collect the same keys in all train pipelines",
            )
        if not all(isinstance(value, torch.Tensor) for value in values):
            batch[key] = values
            continue
        shapes = [tuple(value.shape) for value in values]
        if len(set(shapes)) > 1:
            return DataError(
                f"{key} of different shapes in one batch: {shapes} ({_first_name(samples)}, ...)",
                "clips of one size",
                "end the train pipeline with RandomCrop and Pad to one size",
            )
        batch[key] = torch.stack(values)  # (B, ...)
    return batch


def _first_name(samples: Sequence[dict[str, Any]]) -> Any:
    """What a reader finds the first sample by."""
    return samples[0].get("img_metas", {}).get("filename")


class _Samples(Dataset):
    """Hands errors of the data over as values: an exception would reach the main process as a worker's traceback."""

    def __init__(self, dataset: VideoDataset | RepeatDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> dict[str, Any] | SegError:
        try:
            return self.dataset[key]
        except SegError as error:
            return error


def _init_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group. The main process finishes its iteration then, for
    # which it needs its workers; they end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
