"""Toy objects with ids: the layouts that the data sets read, an object that enters late, the same files for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from mmseg.config import load_config
from mmseg.datasets import StaticImageDataset, VOSClipDataset, build_dataset
from mmseg.errors import ConfigError
from mmseg.images import read_mask
from mmseg.making.toy_given import generate_toy_given
from tests.golden_cases import GOLDEN

CONFIGS = GOLDEN.parents[1] / "local_configs"


def test_all_layouts_can_be_read(tmp_path):
    root = generate_toy_given(tmp_path / "toy", 2, 1, 2, 9, (48, 64))
    davis = root / "DAVIS/2017/trainval"
    first, last = (read_mask(davis / f"Annotations/480p/val_000/{t:05d}.png") for t in (0, 8))
    assert 3 not in first and 3 in last
    assert len(VOSClipDataset(davis, "ImageSets/2017/train.txt", "480p")) == 2
    assert len(StaticImageDataset(root / "static")) == 2
    options = {"data.test.data_root": str(davis)}
    dataset = build_dataset(load_config(CONFIGS / "gsfm/davis2017_val.py", options).data.test, test_mode=True)
    assert np.array_equal(next(dataset.frames(0)).given, first)
    options = {"data.test.data_root": str(root / "YouTube/valid")}
    dataset = build_dataset(load_config(CONFIGS / "gsfm/youtube2019_val.py", options).data.test, test_mode=True)
    given = {frame.number: set(np.unique(frame.given)) - {0} for frame in dataset.frames(0) if frame.given is not None}
    assert given[0] and 3 in set().union(*given.values()) - given[0]


def test_a_seed_gives_the_same_files(tmp_path):
    one, other = (generate_toy_given(tmp_path / name, 1, 1, 1, 6, (32, 48), seed=4) for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 30 and all((one / path).read_bytes() == (other / path).read_bytes() for path in files)
    assert generate_toy_given(one, 1, 1, 1, 6, (32, 48), seed=4) == one
    with pytest.raises(ConfigError, match="frames=2"):
        generate_toy_given(tmp_path / "c", frames=2)
