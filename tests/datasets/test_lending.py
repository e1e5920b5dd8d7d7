"""Lent memory: used again once nobody looks at it, and never before."""

from __future__ import annotations

import gc
import itertools
import os
import random
from collections import deque

import pytest
import torch

from mmseg.datasets.batches import batch_of, new_tensor
from mmseg.datasets.lending import Borrower, Lender
from mmseg.datasets.workers import Workers


class Pair:
    """Both sides, without a pipe between them."""

    def __init__(self) -> None:
        self.lender, self.borrower = Lender(), Borrower()

    def send(self, value: int, shape: tuple[int, ...] = (4, 5), keep: list | None = None) -> dict:
        """What arrives of a tensor full of `value`."""
        self.lender.returned(self.borrower.returned())
        tensor = self.lender.new_tensor(shape, torch.float32).fill_(value)
        if keep is not None:
            keep.append(tensor)
        packed = self.lender.pack({"img": tensor, "again": tensor, "name": "a"})
        self.borrower.given_up(self.lender.given_up())
        return self.borrower.unpack(packed)

    @property
    def memories(self) -> int:
        return len(self.borrower._memories)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_memory_that_nobody_looks_at_is_used_again(pair):
    for number in range(10):
        batch = pair.send(number)
        assert batch["name"] == "a" and (batch["img"] == number).all() and batch["img"].shape == (4, 5)
    assert pair.memories == 2  # one is made while the one before it is still there


def squared(img: torch.Tensor) -> torch.Tensor:
    return (torch.ones((), requires_grad=True) * img).sum()


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch,
        lambda batch: batch["again"],
        lambda batch: batch["img"][2, 3:4],
        lambda batch: batch["img"].numpy()[1:],
        lambda batch: batch["img"].view(torch.int32),
        lambda batch: batch["img"].untyped_storage(),
        lambda batch: memoryview(batch["img"].numpy()),
        lambda batch: torch.utils.dlpack.to_dlpack(batch["img"]),
        lambda batch: squared(batch["img"]),  # whose graph needs it for the gradient
    ],
)
def test_memory_that_anything_looks_at_is_not(pair, keep):
    batch = pair.send(7)
    address, kept = batch["img"].data_ptr(), keep(batch)
    del batch
    seen = {pair.send(number)["img"].data_ptr() for number in range(5)}
    assert address not in seen
    del kept
    gc.collect()
    assert address in {batch["img"].data_ptr() for batch in [pair.send(number) for number in range(5)]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_memory_that_a_forked_process_has_is_not_used_again(pair):
    batch = pair.send(7)
    (wait, go), (said, say) = os.pipe(), os.pipe()
    if not (child := os.fork()):
        os.read(wait, 1)
        os.write(say, str(batch["img"].unique().tolist()).encode())
        os._exit(0)
    del batch
    for number in range(5):
        pair.send(number)
    os.write(go, b".")
    assert os.read(said, 100) == b"[7.0]"
    os.waitpid(child, 0)
    for end in (wait, go, said, say):
        os.close(end)
    assert pair.memories == 1  # the child's is given up, not kept


def test_memory_of_a_peak_is_given_up(pair):
    kept = [pair.send(number) for number in range(30)]
    assert pair.memories == 30
    kept.clear()
    for number in range(200):
        pair.send(number)
    assert pair.memories <= 3


def test_batches_of_many_tensors_use_memory_again():
    lender, ahead = Lender(), deque(maxlen=3)
    for _ in range(20):
        ahead.append([lender.new_tensor((100 * 2**size,), torch.uint8) for size in range(3) for _ in range(12)])
    assert lender._made == 4 * 36


def test_what_is_no_plain_tensor_goes_another_way(pair):
    """Its bytes are not all that it is, or it has none."""
    turned = pair.lender.new_tensor((3,), torch.complex64).fill_(1 + 2j).conj()
    values = {"turned": turned, "sparse": torch.eye(3).to_sparse(), "text": "a"}
    packed = pair.lender.pack(values)
    assert all(packed[name] is value for name, value in values.items())


def test_what_the_worker_keeps_of_a_batch_stays_too(pair):
    kept = []
    pair.send(1, keep=kept)
    for number in range(2, 5):
        pair.send(number)
    assert (kept[0] == 1).all()


def test_memory_of_other_sizes_is_given_up(pair):
    for size in range(1, 30):
        assert (pair.send(size, (3 * size, 100))["img"] == size).all()
    assert pair.memories <= 3


def batch_of_a_key(key: int) -> dict:
    with batch_of(2) as batch:
        samples = []
        for _ in range(2):
            batch.next_sample()
            samples.append([new_tensor((3, 50), torch.float32).fill_(key), new_tensor((7,), torch.int64).fill_(key)])
        img, labels = (batch.joined(values) for values in zip(*samples))
    return {"img": img, "labels": labels, "key": key}


def test_batches_of_workers_stay_as_they_are_as_long_as_they_are_kept():
    chance, kept = random.Random(0), {}
    workers = Workers(batch_of_a_key, itertools.count(), 2)
    for key in range(60):
        batch = next(workers)
        assert batch["key"] == key and batch["img"].shape == (2, 3, 50) and batch["labels"].dtype == torch.int64
        kept[key] = batch["img"], batch["labels"][1]
        for old in chance.sample(sorted(kept), len(kept) // 3):
            del kept[old]
        for number, tensors in kept.items():
            assert all((tensor == number).all() for tensor in tensors)
    batch = None
    kept.clear()
    for _ in range(40):
        next(workers)
    addresses = {next(workers)["img"].data_ptr() for _ in range(40)}
    workers.close()
    assert len(addresses) < 20  # of 40 batches
