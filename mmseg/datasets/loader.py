"""Batches of training clips, made by worker processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from mmseg import distributed
from mmseg.datasets.base import VideoDataset
from mmseg.datasets.batches import batch_of
from mmseg.datasets.sampler import BatchSampler, PositionSampler, SampleKey, position_of
from mmseg.datasets.workers import Workers
from mmseg.datasets.wrappers import RepeatDataset
from mmseg.errors import ConfigError, DataError, SegError
from mmseg.structures import Progress


class TrainLoader(Iterator[dict[str, Any]]):
    """Endless iterator over the batches of one process; see :func:`build_train_loader`. A context manager.

    Args:
        make: makes the batch of a list of sample keys, or returns the error that prevents it.
        keys: the lists of keys.
        workers: number of worker processes, which start with the first batch; 0 makes the batches in this process.
        device: of the training; for a GPU, batches come in pinned memory, which it can fetch while it computes.
    """

    def __init__(
        self,
        make: Callable[[list[SampleKey]], dict[str, Any] | SegError],
        keys: Iterable[list[SampleKey]],
        workers: int,
        device: torch.device,
    ) -> None:
        self._make, self._keys, self._count, self._device = make, keys, workers, device
        self._workers: Workers | None = None
        self._batches: Iterator[dict[str, Any] | SegError] | None = None

    def __next__(self) -> dict[str, Any]:
        """The next batch: ``img`` (B, T, 3, H, W), ``gt_semantic_seg`` (B, T, 1, H, W), ``img_metas`` list of B dicts.

        Whatever else the samples hold is joined by :func:`collate`.

        Raises:
            SegError: a sample could not be made; raised as it was in the worker, and the workers are stopped.
            DataError: a worker has died.
        """
        if self._batches is None:
            self._batches = self._start()
        batch = next(self._batches)
        if isinstance(batch, SegError):
            self.close()
            raise batch
        return batch

    def _start(self) -> Iterator[dict[str, Any] | SegError]:
        if not self._count:
            return map(self._make, self._keys)
        self._workers = Workers(self._make, iter(self._keys), self._count)
        return pinned(self._workers, self._device) if self._device.type == "cuda" else self._workers

    def close(self) -> None:
        """Stop the workers. The next batch would start from the first position again."""
        if self._workers is not None:
            self._workers.close()
        self._workers = self._batches = None

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def pinned(batches: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """`batches` with their tensors in pinned memory; a thread copies each while the one before it is used."""

    def pin() -> dict[str, Any]:
        batch = next(batches)
        return {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    # pinning makes a context on the current GPU, which every thread chooses for itself
    with ThreadPoolExecutor(1, "pin", initializer=torch.cuda.set_device, initargs=(device,)) as thread:
        coming = thread.submit(pin)
        while True:
            batch = coming.result()
            coming = thread.submit(pin)
            yield batch


def build_train_loader(
    dataset: VideoDataset | RepeatDataset,
    samples_per_gpu: int,
    workers_per_gpu: int,
    seed: int,
    start_iter: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    progress: Callable[[int], Progress] | None = None,
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
        device: of the training; default that of this process.
        progress: how far the training is at a position of the global order of samples; data sets may go by it.

    Raises:
        ConfigError: a number out of range.
    """
    limits = dict(samples_per_gpu=(samples_per_gpu, 1), workers_per_gpu=(workers_per_gpu, 0), seed=(seed, 0))
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} = {value!r}", f"an integer of at least {least}", f"fix {name}")
    order = PositionSampler(len(dataset), seed)
    keys = BatchSampler(order, samples_per_gpu, start_iter, rank, world_size)
    return TrainLoader(
        functools.partial(_batch, dataset, progress), keys, workers_per_gpu, device or distributed.device()
    )


def _batch(
    dataset: VideoDataset | RepeatDataset, progress: Callable[[int], Progress] | None, keys: Sequence[SampleKey]
) -> dict[str, Any] | SegError:
    """The batch of some samples. Errors of the data are values, so that they can come from another process."""
    try:
        with batch_of(len(keys)) as batch:
            samples = []
            for index, seed in keys:
                batch.next_sample()
                samples.append(
                    dataset.clip(index, np.random.default_rng(seed), progress and progress(position_of(seed)))
                )
            return collate(samples, batch.joined)
    except SegError as error:
        return error


def collate(
    samples: Sequence[dict[str, Any] | SegError], join: Callable[[Sequence[torch.Tensor]], torch.Tensor] = torch.stack
) -> dict[str, Any] | SegError:
    """Join samples into a batch: tensors get a batch axis, anything else (``img_metas``, texts, numbers) is listed.

    `join` gives tensors of one shape their batch axis.

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
        batch[key] = join(values)  # (B, ...)
    return batch


def _first_name(samples: Sequence[dict[str, Any]]) -> Any:
    """What a reader finds the first sample by."""
    return samples[0].get("img_metas", {}).get("filename")
