"""VideoStream with masks: ids, removal, views of another size, and masks that do not fit."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from mmseg.apis import VideoStream, inference_segmentor
from mmseg.config import load_config
from mmseg.errors import ConfigError, DataError
from tests.golden_cases import GOLDEN
from tests.models.gsfm_cases import network

CONFIG = GOLDEN.parents[1] / "local_configs/gsfm/davis2017_val.py"


@pytest.fixture(scope="module")
def model():
    model = network()
    model.cfg = load_config(CONFIG)
    return model


def frame(t: int) -> np.ndarray:
    return np.random.default_rng(t).integers(0, 256, (30, 45, 3), dtype=np.uint8)


def mask() -> np.ndarray:
    ids = np.zeros((30, 45), np.int64)
    ids[4:20, 5:20], ids[10:28, 25:40] = 9, 40
    return ids


def test_step_with_masks(model):
    video = VideoStream(model, mem_every=1)
    assert not video.step(frame(0)).any()
    assert np.array_equal(video.step(frame(1), mask=mask()), mask())
    assert set(np.unique(video.step(frame(2)))) <= {0, 9, 40}
    new = np.zeros((30, 45), bool)
    new[:4, :4] = True
    labels = video.step(frame(3), mask=np.where(new, 7, 0), objects=[7])
    assert (labels[new] == 7).all() and not (labels[~new] == 7).any()
    video.remove([9])
    assert 9 not in video.step(frame(4))
    with pytest.raises(ConfigError, match="object 9"):
        video.remove([9])
    video.reset()
    assert not video.step(frame(0)).any()


def test_ids_that_are_none(model):
    video = VideoStream(model)
    for wrong in (1, ["a"], [1.5], None):
        with pytest.raises(DataError, match="a list of object ids"):
            video.remove(wrong)
        if wrong is not None:
            with pytest.raises(DataError, match="a list of object ids"):
                video.step(frame(0), mask=np.ones((30, 45), np.uint8), objects=wrong)
    assert video.step(frame(0), mask=np.ones((30, 45), np.uint8), objects=np.unique([0, 1])).shape == (30, 45)
    video.remove(np.array([1]))


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros((30, 47), np.uint8), "mask of 47x30 pixels for a frame of 45x30"),
        (np.zeros((30, 45, 3), np.uint8), r"a given mask that is an array \(30, 45, 3\)"),
        (np.full((30, 45), 0.5), "of float64"),
        (np.full((30, 45), 300), r"object ids \[300\]"),
    ],
)
def test_masks_that_do_not_fit(model, given, message):
    video = VideoStream(model)
    with pytest.raises(DataError, match=message):
        video.step(frame(0), mask=given)


def test_a_mask_that_is_one_column_off_is_resized_with_a_warning(model, caplog):
    wide = np.zeros((30, 46), np.uint8)
    wide[5:25, 5:30] = 3
    with caplog.at_level(logging.WARNING):
        labels = VideoStream(model).step(frame(0), mask=wide)
    assert labels.shape == (30, 45) and set(np.unique(labels)) == {0, 3} and "resized" in caplog.text


def test_frames_that_change_their_size(model):
    video = VideoStream(model)
    video.step(frame(0), mask=mask())
    with pytest.raises(DataError, match="all frames of a video to have one size"):
        video.step(frame(1)[:20])


def test_ways_without_a_mask_are_refused(model):
    with pytest.raises(ConfigError, match="inference_segmentor with a GSFM") as caught:
        inference_segmentor(model, [frame(0), frame(1)])
    assert "mask=mask" in caught.value.action
    with pytest.raises(ConfigError, match="encode_decode of GSFM") as caught:
        model.encode_decode(torch.zeros(1, 2, 3, 32, 48), None)
    assert "stream" in caught.value.action
