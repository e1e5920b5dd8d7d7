"""The toy data set: layout, determinism, and what can be seen in it."""

import json

import numpy as np
import pytest

from mmseg.datasets import VSPWDataset
from mmseg.errors import ConfigError, DataError
from mmseg.making.toy import generate_toy_dataset
from mmseg.making.toy_scene import TOY_CLASSES, ToyScene, outline_mask
from tests.datasets.vspw_folder import TEST, TRAIN

SMALL = dict(videos=3, val_videos=2, test_videos=1, frames=18, size=(64, 96))


def files(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_toy_dataset(tmp_path_factory.mktemp("toy") / "set", **SMALL)


def test_it_is_a_data_set(root):
    train, val = VSPWDataset(root, "train", TRAIN), VSPWDataset(root, "val", TEST, test_mode=True)
    assert (len(train), len(val), len(val.videos)) == (3, 36, 2)
    assert len(VSPWDataset(root, "test", test_mode=True)) == 18
    assert list(train.CLASSES) == [look.name for look in TOY_CLASSES]
    assert train[0, (0, 0)]["img"].shape == (4, 3, 32, 32)
    assert val.load_frame(0, 0).shape == (64, 96, 3)


def test_what_is_in_it(root):
    """All classes in every split, several at a time; void pixels of both kinds; things move."""
    for split in ("train", "val"):
        dataset = VSPWDataset(root, split, test_mode=True)
        counts = np.zeros(256, int)
        for index in range(len(dataset.videos)):
            labels = [dataset.load_label(index, t) for t in range(18)]
            counts += sum(np.bincount(label.ravel(), minlength=256) for label in labels)
            assert all(len(np.unique(label)) > 3 for label in labels)
            assert (labels[0] != labels[17]).mean() > 0.03
            assert np.abs(dataset.load_frame(index, 0).astype(int) - dataset.load_frame(index, 1)).mean() > 3
        assert (counts[: len(TOY_CLASSES)] > 0).all()
        assert 0.01 < counts[255] / counts.sum() < 0.15
    raw = ToyScene(0, 8, (64, 96), np.random.default_rng(0)).render(0)[1]
    assert {0, 255} <= set(np.unique(raw).tolist())


def test_the_same_seed_gives_the_same_files(root, tmp_path):
    again = files(generate_toy_dataset(tmp_path / "again", **SMALL))
    assert again == files(root)
    other = files(generate_toy_dataset(tmp_path / "other", **SMALL, seed=1))
    assert other.keys() == again.keys() and other != again


def test_more_videos_leave_the_first_ones_as_they_are(root, tmp_path):
    more = files(generate_toy_dataset(tmp_path / "more", **{**SMALL, "videos": 4}))
    assert all(more[name] == data for name, data in files(root).items() if name.startswith("data"))


@pytest.mark.parametrize("num_classes", [3, 5])
def test_fewer_classes(tmp_path, num_classes):
    root = generate_toy_dataset(tmp_path / "few", **SMALL, num_classes=num_classes)
    assert len(json.loads((root / "classes.json").read_text())) == num_classes
    dataset = VSPWDataset(root, "train", test_mode=True)
    seen = set.union(*(set(np.unique(dataset.load_label(v, 0)).tolist()) for v in range(3)))
    assert seen <= {*range(num_classes), 255} and len(seen) > 3


def test_a_second_call_does_nothing_and_other_settings_need_force(tmp_path):
    root = generate_toy_dataset(tmp_path / "set", **SMALL)
    (root / "mark").touch()
    generate_toy_dataset(root, **SMALL)
    assert (root / "mark").exists()
    with pytest.raises(DataError, match="holds a data set already"):
        generate_toy_dataset(root, **SMALL, seed=1)
    generate_toy_dataset(root, **SMALL, seed=1, overwrite=True)
    assert not (root / "mark").exists()


def test_what_others_put_there_is_never_replaced(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(DataError, match="no data set made here"):
        generate_toy_dataset(tmp_path, **SMALL, overwrite=True)
    assert [f.name for f in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("numbers", [dict(videos=0), dict(num_classes=2), dict(num_classes=9), dict(size=(16, 64))])
def test_numbers_out_of_range(tmp_path, numbers):
    with pytest.raises(ConfigError, match=next(iter(numbers))):
        generate_toy_dataset(tmp_path / "set", **{**SMALL, **numbers})
    assert not list(tmp_path.iterdir())


def test_outlines_differ():
    shapes = [outline_mask(look.outline) for look in TOY_CLASSES if look.outline]
    areas = [(shape > 0).mean() for shape in shapes]
    assert all(0.2 < area < 0.8 for area in areas)
    assert len({shape.tobytes() for shape in shapes}) == len(shapes)
