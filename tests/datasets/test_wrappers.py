"""Data sets that repeat others, and several as one."""

import itertools
import pathlib

import pytest
import torch

from mmseg.config import load_config
from mmseg.datasets import (
    ConcatDataset,
    RepeatDataset,
    VSPWDataset,
    build_dataset,
    build_train_loader,
    check_same_classes,
)
from mmseg.datasets.sampler import PositionSampler
from mmseg.datasets.vspw_classes import CLASSES
from mmseg.errors import ConfigError, DataError
from tests.datasets.vspw_folder import TEST, TRAIN, write_vspw


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrappers")
    write_vspw(folder / "one", train=dict(a=10, b=11), val=dict(v=3), classes=5)
    write_vspw(folder / "two", train=dict(c=12, d=13, e=14), classes=5)
    write_vspw(folder / "other", train=dict(f=12), classes=4)
    return folder


def cfg(roots, name, **keys):
    return dict(type="VSPWDataset", data_root=str(roots / name), split="train", pipeline=TRAIN, **keys)


def videos(dataset):
    return [dataset[index, (0,)]["img_metas"]["video"] for index in range(len(dataset))]


def test_a_list_of_data_sets(roots):
    dataset = build_dataset([cfg(roots, "one"), cfg(roots, "two")])
    assert isinstance(dataset, ConcatDataset) and videos(dataset) == list("abcde")
    assert (dataset.num_classes, dataset.CLASSES[4]) == (5, "name4")
    alone = VSPWDataset(roots / "two", "train", TRAIN)
    assert torch.equal(dataset[3, (1, 2)]["img"], alone[1, (1, 2)]["img"])
    assert torch.equal(dataset[-2, (1, 2)]["img"], alone[1, (1, 2)]["img"])
    for index in (5, -6):
        with pytest.raises(IndexError):
            dataset[index]
    assert len(list(dataset)) == 5


def test_as_published_configs_have_it(roots):
    """Two stages of sampling: a large set once, a small one several times, and repeats around lists and repeats."""
    small = dict(type="RepeatDataset", times=3, dataset=cfg(roots, "one"))
    assert videos(build_dataset([cfg(roots, "two"), small])) == list("cdeababab")
    around = dict(type="RepeatDataset", times=2, dataset=[cfg(roots, "one"), cfg(roots, "two")])
    assert videos(build_dataset(around)) == list("abcdeabcde")
    twice = dict(type="RepeatDataset", times=2, dataset=dict(type="RepeatDataset", times=2, dataset=cfg(roots, "one")))
    dataset = build_dataset(dict(type="ConcatDataset", datasets=[twice, [cfg(roots, "two")]]))
    assert videos(dataset) == list("ababababcde") and [len(part) for part in dataset.parts] == [2, 3]


def test_a_sample_is_a_function_of_seed_and_position(roots):
    """Whatever the number of workers, and every item comes once in each pass."""
    dataset = build_dataset([cfg(roots, "one"), dict(type="RepeatDataset", times=2, dataset=cfg(roots, "two"))])
    batches = []
    for workers in (0, 2):
        loader = build_train_loader(dataset, 2, workers, seed=3)
        batches.append(list(itertools.islice(loader, 4)))
        loader.close()
    for one, other in zip(*batches):
        assert torch.equal(one["img"], other["img"]) and torch.equal(one["gt_semantic_seg"], other["gt_semantic_seg"])
    sampler = PositionSampler(len(dataset), 3)
    expected = [dataset[sampler[position]]["img_metas"]["video"] for position in range(8)]
    assert [meta["video"] for batch in batches[0] for meta in batch["img_metas"]] == expected
    assert sorted(expected) == list("abccddee")


def test_label_counts_are_those_of_all_parts(roots):
    parts = [VSPWDataset(roots / name, "train", TRAIN) for name in ("one", "two")]
    counts = RepeatDataset(ConcatDataset(parts), 2).label_counts(1000)
    assert (counts == parts[0].label_counts() + parts[1].label_counts()).all()
    assert ConcatDataset(parts).label_counts(6).sum() == 6 * 24 * 36


def refused(words, make, *args, error=ConfigError, **kwargs):
    with pytest.raises(error) as caught:
        make(*args, **kwargs)
    assert words in str(caught.value) and caught.value.expected and caught.value.action
    return str(caught.value)


def test_classes_must_agree(roots):
    refused("5 in one, 4 in the other", build_dataset, [cfg(roots, "one"), cfg(roots, "other")])
    swapped = cfg(roots, "two", classes=["name0", "name2", "name1", "name3", "name4"])
    message = refused("class 1 is 'name1' in one and 'name2' in the other", build_dataset, [cfg(roots, "one"), swapped])
    assert message.startswith("data.train")
    refused("dilation [-9, -6, -3] and [-3]", build_dataset, [cfg(roots, "one"), cfg(roots, "two", dilation=[-3])])


def test_training_and_validation_must_agree(roots):
    pipeline = [TRAIN[0], *TRAIN[2:]]
    train = build_dataset([{**cfg(roots, "two"), "pipeline": pipeline}, {**cfg(roots, "one"), "pipeline": pipeline}])
    val = lambda name, **keys: VSPWDataset(roots / name, "val", TEST, test_mode=True, **keys)  # noqa: E731
    check = lambda other: check_same_classes(train, other, "data.train", "data.val")  # noqa: E731
    check(val("one"))
    refused("data.train and data.val have other classes: 5 in one, 124", check, val("one", classes=CLASSES))
    unreduced = val("one", reduce_zero_label=False)
    message = refused("reduce_zero_label=True in data.train, False in data.val", check, unreduced)
    assert str(roots / "one") in message
    unreduced.data_roots = (roots / "elsewhere",)  # which may be written in another way
    check(unreduced)


def test_testing_takes_one_data_set(roots):
    val = dict(type="VSPWDataset", data_root=str(roots / "one"), split="val", pipeline=TEST)
    for several in ([val, val], [val], dict(type="RepeatDataset", times=2, dataset=val),
                    dict(type="ConcatDataset", datasets=[val])):  # fmt: skip
        message = refused("one data set", build_dataset, several, "data.test", test_mode=True)
        assert message.startswith("data.test: a ") and "data.test.data_root=DIR" in message


@pytest.mark.parametrize("section", ["val", "test"])
def test_a_list_to_test_on_is_refused_when_the_config_is_read(tmp_path, section):
    toy = pathlib.Path(__file__).parents[2] / "local_configs" / "toy" / "cffm.b0.py"
    (tmp_path / "list.py").write_text(
        f"_base_ = [{str(toy)!r}]\ndata = dict({section}=[dict(type='VSPWDataset')] * 2)\n"
    )
    message = refused(f"data.{section} = [", load_config, tmp_path / "list.py")
    assert "one data set as a dict" in message and len(message) < 1000


def test_what_is_no_data_set(roots):
    refused("data.train.1", build_dataset, [cfg(roots, "one"), 5])
    refused("data.train.dataset", build_dataset, dict(type="RepeatDataset", times=2, dataset=5))
    refused("missing key 'dataset'", build_dataset, dict(type="RepeatDataset", times=2))
    refused("data.train.datasets", build_dataset, dict(type="ConcatDataset", datasets=cfg(roots, "one")))
    refused("no data sets", build_dataset, [])
    for times in (0, 1.5, True, "3"):
        cfg_ = dict(type="RepeatDataset", times=times, dataset=cfg(roots, "one"))
        refused("data.train.times", build_dataset, cfg_)
    refused("data.train.1.split", build_dataset, [cfg(roots, "one"), {**cfg(roots, "one"), "split": 3}])
    refused("none.txt", build_dataset, [cfg(roots, "one"), {**cfg(roots, "one"), "split": "none"}], error=DataError)
