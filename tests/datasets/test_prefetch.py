"""Frames in order from background threads."""

import threading
import time

import cv2
import numpy as np
import pytest
import torch

from mmseg.datasets import FramePrefetcher, VSPWDataset
from mmseg.errors import ConfigError, DataError
from tests.datasets.vspw_folder import TEST, write_vspw


@pytest.fixture
def dataset(tmp_path):
    return VSPWDataset(write_vspw(tmp_path, val=dict(c=9, d=3)), "val", TEST, test_mode=True)


def frame_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames")]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_frames_come_in_order_and_complete(dataset, threads):
    with FramePrefetcher(dataset, 0, depth=2, threads=threads) as frames:
        items = list(frames)
    assert [number for number, *_ in items] == list(range(9))
    for number, frame, views, labels in items:
        np.testing.assert_array_equal(frame, dataset.load_frame(0, number))
        np.testing.assert_array_equal(labels, dataset.load_label(0, number))
        assert torch.equal(views[0].img, dataset.pipeline.views(frame)[0].img)
    assert not frame_threads()


def test_another_pipeline(dataset):
    _, _, views, _ = next(iter(FramePrefetcher(dataset, 0, threads=0, pipeline=dataset.pipeline.augmented())))
    assert len(views) == 12


def test_only_so_many_frames_are_decoded_ahead(tmp_path):
    root = write_vspw(tmp_path, val=dict(c=30))
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    for number in range(8, 30):  # any of these would fail
        (root / "data" / "c" / "origin" / f"{number:08d}.jpg").unlink()
    with FramePrefetcher(dataset, 0, depth=4, threads=2) as prefetcher:
        frames = iter(prefetcher)
        for expected in range(3):
            assert next(frames)[0] == expected
        time.sleep(0.05)
        for number in range(8, 30):
            cv2.imwrite(str(root / "data" / "c" / "origin" / f"{number:08d}.jpg"), np.zeros((24, 36, 3), np.uint8))
        assert len(list(frames)) == 27


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_when_its_frame_is_due(tmp_path, threads):
    root = write_vspw(tmp_path, val=dict(c=9))
    cv2.imwrite(str(root / "data" / "c" / "mask" / "00000004.png"), np.ones((5, 5), np.uint8))
    frames = iter(FramePrefetcher(VSPWDataset(root, "val", TEST, test_mode=True), 0, threads=threads))
    assert [next(frames)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"00000004\.png: mask of 5x5 pixels for a frame of 36x24"):
        next(frames)
    assert not frame_threads()


def test_leaving_early_stops_the_threads(dataset):
    with FramePrefetcher(dataset, 0) as frames:
        for number, *_ in frames:
            if number == 1:
                break
    assert not frame_threads()


def test_training_data_has_no_stream(tmp_path):
    dataset = VSPWDataset(write_vspw(tmp_path, val=dict(c=2)), "val", test_mode=True)
    with pytest.raises(ConfigError):
        FramePrefetcher(dataset, 0)
