"""Colours over frames, and the lines between them."""

import numpy as np
import pytest

from mmseg.visualization import colourise, overlay, palette_table, side_by_side

TABLE = palette_table([[200, 0, 0], [0, 200, 0], [0, 0, 0]], 3)


def picture(height=400, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_colours_are_bgr():
    assert colourise(np.array([[0, 1, 255]], np.uint8), TABLE).tolist() == [[[0, 0, 200], [0, 200, 0], [0, 0, 0]]]
    frame = np.full((1, 2, 3), 100, np.uint8)
    assert overlay(frame, np.zeros((1, 2), np.uint8), TABLE).tolist() == [[[55, 55, 145]] * 2]
    assert overlay(frame, np.zeros((1, 2), np.uint8), TABLE, opacity=0.5).tolist() == [[[50, 50, 150]] * 2]


@pytest.mark.parametrize("height", [40, 400])
@pytest.mark.parametrize("outline", [True, False])
def test_void_and_background_are_untouched(height, outline):
    """Also right beside a painted class, where the lines are, and whatever the table says of 255."""
    frame, labels = picture(height), np.zeros((height, 60), np.uint8)
    labels[:, 20:30], labels[:, 30:40], labels[:, 40:] = 255, 2, 1
    kept = frame.copy()
    table = TABLE.copy()
    table[255] = 77
    mixed = overlay(frame, labels, table, outline=outline)
    assert np.array_equal(mixed[:, 20:40], frame[:, 20:40])
    assert (mixed[:, :20] != frame[:, :20]).any(axis=-1).mean() > 0.95
    assert np.array_equal(frame, kept)


def test_lines_between_classes_are_seen_on_every_frame():
    """A white one beside a dark one; where a class meets the frame, one of its own colour, as bright as it gets."""
    labels = np.zeros((400, 60), np.uint8)
    labels[:, 20:40], labels[:, 40:] = 1, 255
    for grey in (0, 90, 255):
        mixed = overlay(np.full((400, 60, 3), grey, np.uint8), labels, TABLE)
        assert (mixed[:, 19] == 255).all() and (mixed[:, 20].max() <= 70)
        assert (mixed[:, 39] == (0, 255, 0)).all()
        assert (mixed[:, 30] == mixed[0, 21]).all() and (mixed[:, 40:] == grey).all()
        flat = overlay(np.full((400, 60, 3), grey, np.uint8), labels, TABLE, outline=False)
        assert (flat[:, :20] == flat[0, 0]).all() and (flat[:, 20:40] == flat[0, 20]).all()


def test_lines_grow_with_the_frame():
    widths = []
    for height in (100, 400, 1080, 2160):
        labels = np.zeros((height, 60), np.uint8)
        labels[:, 30:] = 1
        mixed = overlay(np.full((height, 60, 3), 90, np.uint8), labels, TABLE)
        widths.append(int((mixed[height // 2] != mixed[0, 0]).any(-1)[:30].sum()))
    assert widths == [1, 1, 2, 3]
    small = np.zeros((100, 60), np.uint8)
    small[:, 30:] = 1
    assert overlay(np.full((100, 60, 3), 90, np.uint8), small, TABLE)[50, 29].max() < 255  # half of it


def test_labels_need_not_be_in_one_piece():
    labels = np.random.default_rng(0).integers(0, 3, (60, 400), np.uint8)
    frame = picture()
    assert np.array_equal(overlay(frame, labels.T, TABLE), overlay(frame, labels.T.copy(), TABLE))


def test_side_by_side():
    frame, labels = picture(), np.ones((400, 60), np.uint8)
    both = side_by_side(frame, [labels, None], TABLE, opacity=0.3, gap=4)
    assert both.shape == (400, 3 * 60 + 2 * 4, 3) and (both[:, 60:64] == 255).all()
    assert np.array_equal(both[:, :60], frame) and np.array_equal(both[:, 128:], frame)
    assert np.array_equal(both[:, 64:124], overlay(frame, labels, TABLE, 0.3))
    assert np.array_equal(side_by_side(frame, [], TABLE), frame)
