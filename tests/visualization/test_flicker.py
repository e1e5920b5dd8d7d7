"""Temporal consistency: what counts as flicker, and its picture."""

import cv2
import numpy as np
import pytest

from mmseg.visualization.flicker import Flicker, Motion, flicker_sheet

SIZE = (96, 128)


def texture(size=SIZE, seed=0):
    rough = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    return cv2.resize(rough, size[::-1], interpolation=cv2.INTER_CUBIC)


def counted(frames, maps):
    motion, flicker = Motion(), Flicker()
    for frame, labels in zip(frames, maps):
        flicker.add(motion.step(frame), labels)
    return motion, flicker


def test_labels_that_change_in_a_still_picture():
    frame, maps = texture(), np.zeros((9, *SIZE), np.uint8)
    maps[1::2, 20:60, 30:70] = 3
    maps[:, :10] = 255
    flicker = counted([frame] * 9, maps)[1]
    assert flicker.compared[50:].min() == 8 and flicker.compared[:10].max() == 0
    rates = flicker.rates()
    assert (rates[22:58, 32:68] == 1).all() and rates.sum() == (40**2 + 38**2) / 2  # its rim stays near what was
    assert flicker.share == pytest.approx(rates.sum() / (86 * 128))


def test_labels_that_follow_what_moves_do_not_flicker():
    """A camera pans 3 pixels a frame over stripes: a third of the places get another label in every frame."""
    wide, stripes = texture((96, 256)), (np.arange(256, dtype=np.uint8) // 9 % 5)[None].repeat(96, axis=0)
    views = [slice(3 * n, 3 * n + 128) for n in range(10)]
    frames, maps = [wide[:, view] for view in views], [stripes[:, view] for view in views]
    assert np.mean(maps[0] != maps[1]) > 0.3
    flicker = counted(frames, maps)[1]
    assert flicker.compared.mean() > 0.8 * 9 and flicker.share < 0.01


def test_a_cut_is_a_reason():
    frames, maps = [texture(seed=n) for n in range(4)], [np.full(SIZE, n, np.uint8) for n in range(4)]
    flicker = counted(frames, maps)[1]
    assert flicker.compared.mean() < 1  # of 3


def test_nothing_to_compare():
    motion, flicker = counted([texture()] * 3, [np.full(SIZE, 255, np.uint8)] * 3)
    assert np.isnan(flicker.share) and not flicker.rates().any()
    assert flicker_sheet(motion.first, {"void": flicker}).shape[2] == 3


def test_the_sheet_has_one_scale_for_all():
    frame, still, maps = texture(), np.zeros((9, *SIZE), np.uint8), np.zeros((9, *SIZE), np.uint8)
    maps[::3, 20:60, 30:70] = 3
    motion, calm = counted([frame] * 9, still)
    restless = counted([frame] * 9, maps)[1]
    sheet = flicker_sheet(motion.first, {"calm": calm, "restless": restless}, width=128)
    assert sheet.shape == (22 + 96 + 6 + 44, 2 * 134 + 6, 3)
    left, right = sheet[22:118, 6:134].astype(int), sheet[22:118, 140:268].astype(int)
    assert np.ptp(left, axis=-1).max() == 0  # the frame in grey
    assert np.array_equal(left[70:], right[70:]) and (right[25:55, 35:65, 2] - right[25:55, 35:65, 0]).min() > 60
    ramp = sheet[-42:-32, 6:268].astype(int)
    assert np.ptp(ramp[:, 0]) == 0 and (ramp[:, -1, 2] - ramp[:, -1, 0]).min() > 60  # grey to the hottest
    alone = flicker_sheet(motion.first, {"restless": restless}, width=128)
    assert np.array_equal(alone[22:118, 6:134], right)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 7)])
def test_tiny_frames(size):
    frame = np.zeros((*size, 3), np.uint8)
    motion, flicker = counted([frame] * 3, [np.zeros(size, np.uint8), np.ones(size, np.uint8)] * 2)
    assert flicker.share == 1
    assert flicker_sheet(motion.first, {"tiny": flicker}).size
