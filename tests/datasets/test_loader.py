"""Batches depend on seed and iteration alone; errors arrive as they were raised."""

import itertools

import numpy as np
import pytest
import torch

from mmseg.datasets import RepeatDataset, VSPWDataset, build_train_loader
from mmseg.datasets.loader import collate
from mmseg.datasets.sampler import BatchSampler, PositionSampler
from mmseg.errors import ConfigError, DataError
from tests.datasets.vspw_folder import TRAIN, write_vspw


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_vspw(tmp_path_factory.mktemp("loader"), train=dict(a=10, b=11, c=12, d=13, e=14))
    return RepeatDataset(VSPWDataset(root, "train", TRAIN), times=2)


def take(count, *args, **kwargs):
    loader = build_train_loader(*args, **kwargs)
    batches = list(itertools.islice(loader, count))
    loader.close()
    return batches


def same(one, two):
    return (
        torch.equal(one["img"], two["img"])
        and torch.equal(one["gt_semantic_seg"], two["gt_semantic_seg"])
        and [m["filename"] for m in one["img_metas"]] == [m["filename"] for m in two["img_metas"]]
    )


def test_batch(dataset):
    [batch] = take(1, dataset, 3, 0, seed=0)
    assert batch["img"].shape == (3, 4, 3, 32, 32) and batch["img"].dtype == torch.float32
    assert batch["gt_semantic_seg"].shape == (3, 4, 1, 32, 32) and batch["gt_semantic_seg"].dtype == torch.int64
    assert [set(m) >= {"video", "filename", "ori_shape"} for m in batch["img_metas"]] == [True] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_batches(dataset, workers):
    alone, shared = take(6, dataset, 2, 0, seed=5), take(6, dataset, 2, workers, seed=5)
    assert all(map(same, alone, shared))


@pytest.mark.parametrize(("workers", "start"), [(0, 1), (0, 4), (2, 3)])
def test_a_resumed_loader_goes_on_exactly(dataset, workers, start):
    whole = take(7, dataset, 2, 0, seed=5)  # more than one pass over the ten items
    rest = take(7 - start, dataset, 2, workers, seed=5, start_iter=start)
    assert all(map(same, whole[start:], rest))


def test_processes_share_out_the_same_order(dataset):
    whole = take(3, dataset, 4, 0, seed=1)
    ranks = [take(3, dataset, 2, 0, seed=1, rank=rank, world_size=2) for rank in range(2)]
    for k in range(3):
        assert torch.equal(whole[k]["img"], torch.cat([ranks[0][k]["img"], ranks[1][k]["img"]]))


def test_seeds_differ(dataset):
    assert not same(take(1, dataset, 2, 0, seed=1)[0], take(1, dataset, 2, 0, seed=2)[0])


def test_no_random_state_of_the_process_is_touched(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(2, dataset, 2, 2, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_every_pass_visits_every_item_once_in_another_order():
    sampler = PositionSampler(10, seed=3)
    passes = [[sampler[p][0] for p in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(items) == list(range(10)) for items in passes)
    assert passes[0] != passes[1] != passes[2]
    assert len({sampler[p][1] for p in range(30)}) == 30  # the second visit of an item draws another clip


def test_positions_of_batches():
    keys = [list(itertools.islice(BatchSampler(PositionSampler(100, 0), 2, 3, rank, 4), 2)) for rank in range(4)]
    positions = [[[seed[-1] for _, seed in batch] for batch in rank] for rank in keys]
    assert positions == [[[24, 25], [32, 33]], [[26, 27], [34, 35]], [[28, 29], [36, 37]], [[30, 31], [38, 39]]]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_data_arrives_as_it_was_raised(tmp_path, workers):
    root = write_vspw(tmp_path, train=dict(a=10))
    dataset = VSPWDataset(root, "train", TRAIN)
    for path in (root / "data" / "a" / "mask").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    loader = build_train_loader(dataset, 1, workers, seed=0)
    with pytest.raises(DataError) as error:
        next(loader)
    assert "data/a/mask" in error.value.found and error.value.expected and error.value.action
    assert "Traceback" not in str(error.value)


def test_clips_of_different_sizes_make_no_batch(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=10, b=10))
    pipeline = [step for step in TRAIN if step["type"] not in ("RandomCrop", "Pad")]
    with pytest.raises(DataError, match="different shapes"):
        next(build_train_loader(VSPWDataset(root, "train", pipeline), 2, 0, seed=0))


def test_collate_stacks_tensors_and_lists_everything_else():
    samples = [
        dict(img=torch.full((2, 3), n), count=torch.tensor(n), ids=np.arange(n), name=f"v{n}", img_metas={"n": n})
        for n in (1, 2)
    ]
    batch = collate(samples)
    assert torch.equal(batch["img"], torch.tensor([[[1] * 3] * 2, [[2] * 3] * 2])) and batch["count"].tolist() == [1, 2]
    assert [ids.tolist() for ids in batch["ids"]] == [[0], [0, 1]]
    assert batch["name"] == ["v1", "v2"] and batch["img_metas"] == [{"n": 1}, {"n": 2}]


def test_samples_with_different_entries_make_no_batch():
    error = collate([dict(img=torch.zeros(1)), dict(img=torch.zeros(1), ids=[1])])
    assert isinstance(error, DataError) and "ids in 1 of the 2 samples" in error.found


@pytest.mark.parametrize(
    "numbers", [dict(samples_per_gpu=0), dict(workers_per_gpu=-1), dict(seed=-1), dict(samples_per_gpu=1.5)]
)
def test_numbers_out_of_range(dataset, numbers):
    with pytest.raises(ConfigError, match=next(iter(numbers))):
        build_train_loader(dataset, **{**dict(samples_per_gpu=1, workers_per_gpu=0, seed=0), **numbers})
