"""Frames in order from background threads."""

import itertools
import threading
import time

import cv2
import numpy as np
import pytest

from mmseg.datasets import VSPWDataset, read_ahead
from mmseg.datasets.prefetch import iterate_ahead
from mmseg.errors import DataError
from tests.datasets.vspw_folder import TEST, write_vspw


@pytest.fixture
def dataset(tmp_path):
    return VSPWDataset(write_vspw(tmp_path, val=dict(c=9, d=3)), "val", TEST, test_mode=True)


def frame_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames")]


def test_frames_of_a_video_come_in_order_and_complete(dataset):
    frames = list(dataset.frames(0))
    assert [frame.number for frame in frames] == list(range(9))
    for frame, path in zip(frames, dataset.videos[0].frames, strict=True):
        np.testing.assert_array_equal(frame.image, dataset.load_frame(0, frame.number))
        np.testing.assert_array_equal(frame.truth, dataset.load_label(0, frame.number))
        assert (frame.name, frame.path, frame.wanted) == (f"{frame.number:08d}", path, True)
        picture, frame.image = frame.image, None
        np.testing.assert_array_equal(frame.picture(), picture)
    assert not frame_threads()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_items_come_in_order(threads):
    def load(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(read_ahead(load, range(20), depth=3, threads=threads)) == [n**2 for n in range(20)]
    assert not frame_threads()


def test_only_so_many_frames_are_decoded_ahead():
    loaded = []
    items = read_ahead(lambda number: loaded.append(number) or number, range(30), depth=4, threads=2)
    for expected in range(3):
        assert next(items) == expected
        time.sleep(0.02)
        assert max(loaded) <= expected + 5
    items.close()
    assert len(loaded) <= 8 and not frame_threads()


def test_an_error_is_raised_when_its_frame_is_due(tmp_path):
    root = write_vspw(tmp_path, val=dict(c=9))
    cv2.imwrite(str(root / "data" / "c" / "mask" / "00000004.png"), np.ones((5, 5), np.uint8))
    frames = VSPWDataset(root, "val", TEST, test_mode=True).frames(0)
    assert [next(frames).number for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"00000004\.png: mask of 5x5 pixels for a frame of 36x24"):
        next(frames)
    assert not frame_threads()


def test_leaving_early_stops_the_threads(dataset):
    frames = dataset.frames(0)
    assert next(frames).number == 0 and frame_threads()
    frames.close()
    assert not frame_threads()


def test_a_generator_runs_ahead_and_fails_when_its_item_is_due():
    made, closed = [], threading.Event()

    def items():
        try:
            for number in range(20):
                made.append((number, threading.current_thread().name))
                if number == 12:
                    raise ValueError("broken")
                yield number
        finally:
            closed.set()

    iterator = iterate_ahead(items(), depth=3)
    assert next(iterator) == 0
    deadline = time.monotonic() + 20
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 4 <= len(made) <= 6 and all(name.startswith("frames") for _, name in made)
    assert list(itertools.islice(iterator, 11)) == list(range(1, 12))
    with pytest.raises(ValueError, match="broken"):
        next(iterator)
    assert closed.is_set() and list(iterate_ahead(iter_of(3))) == [0, 1, 2]


def test_closing_stops_the_generator():
    iterator = iterate_ahead(iter_of(10**9))
    assert next(iterator) == 0
    iterator.close()
    assert not frame_threads()


def iter_of(count):
    yield from range(count)
