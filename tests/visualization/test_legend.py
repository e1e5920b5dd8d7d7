"""Legends: what is listed, where, and that it stays there."""

import numpy as np
import pytest

from mmseg.visualization import Legend, legend_strip, overlay, palette_table
from mmseg.visualization.legend import patch
from mmseg.visualization.lettering import shortened, text_width

TABLE = palette_table(None, 124)
NAMES = [f"class {number}" for number in range(124)]


def map_of(*labels, size=(220, 400)):
    columns = np.array(labels, np.uint8)[np.arange(size[1]) * len(labels) // size[1]]
    return np.broadcast_to(columns, size).copy()


def strips(legend, maps, size=(220, 400)):
    return [legend.attach(np.zeros((*size, 3), np.uint8), labels)[:, size[1] :] for labels in maps]


def lines_of(strip):
    """What stands in each line of a strip at the right."""
    return [strip[3 + 14 * i : 17 + 14 * i] for i in range((strip.shape[0] - 7) // 14)]


def test_patches_look_like_the_blended_colours():
    """At their left as over dark frames, at their right as over bright ones."""
    for label in (0, 5):
        found = patch(TABLE[label], 8, 20, 0.45)
        for grey, column in [(40, 0), (215, -1)]:
            frame, labels = np.full((8, 8, 3), grey, np.uint8), np.full((8, 8), label, np.uint8)
            assert abs(found[:, column].astype(int) - overlay(frame, labels, TABLE)[0, 0]).max() <= 1
    strip = legend_strip([5], NAMES, TABLE, 300)
    assert (strip == patch(TABLE[5], 1, 1, 0.45)).all(-1).any()


def test_the_strip_hides_nothing_and_has_one_size():
    legend = Legend(TABLE, NAMES)
    picture = np.random.default_rng(0).integers(0, 256, (220, 400, 3), np.uint8)
    sizes = set()
    for labels in (map_of(3), map_of(*range(60)), map_of(255), None):
        whole = legend.attach(picture, labels)
        assert np.array_equal(whole[:, :400], picture)
        sizes.add(whole.shape)
    assert len(sizes) == 1 and sizes.pop()[0] == 220


def test_wide_pictures_have_it_below():
    picture = np.zeros((100, 900, 3), np.uint8)
    whole = Legend(TABLE, NAMES).attach(picture, map_of(1, size=(100, 300)))
    assert whole.shape[0] > 100 and whole.shape[1] == 900
    assert Legend(TABLE, NAMES, place="right").attach(picture, map_of(1)).shape[0] == 100


def test_classes_stay_in_their_places():
    """Those of the first frame in the order of labels, then as they come; names of absent ones are faint."""
    first, second, third = map(lines_of, strips(Legend(TABLE, NAMES), [map_of(9, 4), map_of(9, 2), map_of(9, 4, 2)]))
    assert np.array_equal(first[1], second[1])  # 9 is the second
    assert first[0].max() > 200 > second[0].max()  # 4 is gone
    assert not np.array_equal(first[2], second[2]) and np.array_equal(second[2], third[2])  # 2 has come, behind them
    assert np.array_equal(first[0], third[0])
    assert np.ptp(third[3]) == 0


def test_a_full_legend():
    """A new class takes the place of the one that has been absent for longest; else it is counted."""
    legend = Legend(TABLE, NAMES)
    places = 220 // 14 - 1  # the last one is for the number of the others
    strips(legend, [map_of(*range(places)), map_of(0, *range(2, places)), map_of(*range(2, places))])  # 1 goes, then 0
    assert legend._slots == list(range(places))
    strips(legend, [map_of(*range(2, places), 99)])
    assert legend._slots == [0, 99, *range(2, places)]
    shown = [0, *range(2, places), 99]
    without, counted = map(lines_of, strips(legend, [map_of(*shown), map_of(1, 50, *shown)]))
    assert legend._slots == [0, 99, *range(2, places)]
    assert np.ptp(without[places]) == 0 and np.ptp(counted[places]) > 100


def test_what_is_not_listed():
    """Void, background whose colour is black, and classes of a few pixels."""
    table = palette_table([[0, 0, 0], [200, 0, 0], [0, 200, 0]], 3)
    labels = map_of(0, 255)
    labels[:2, :2] = 1
    [empty] = strips(Legend(table, ["background", "a", "b"]), [labels])
    assert np.ptp(empty) == 0
    labels[:50, :50] = 1
    [one] = strips(Legend(table, ["background", "a", "b"]), [labels])
    assert np.ptp(one) > 100


def test_objects_have_numbers_for_names():
    table = palette_table(None, None)
    named = Legend(table, ["background", "object 1", "object 2"])
    for legend in (Legend(table), named):
        legend.attach(np.zeros((220, 400, 3), np.uint8), map_of(0, 1, 2))
        assert legend._slots == [1, 2]


def test_many_classes_wrap_and_long_names_are_cut():
    one, many = legend_strip([1], NAMES, TABLE, 400), legend_strip(range(124), NAMES, TABLE, 400)
    assert one.shape[1] == many.shape[1] == 400 and many.shape[0] > 20 * one.shape[0]
    long = legend_strip([0], ["w" * 200], TABLE, 400)
    assert (long[:, -60:] == 255).all()
    cut = shortened("billboard_or_Bulletin_Board", 80, 12)
    assert cut.endswith("…") and text_width(cut, 12) <= 80 and shortened("cat", 80, 12) == "cat"


@pytest.mark.parametrize("size", [(1, 1), (9, 9), (40, 3), (3, 40)])
def test_tiny_pictures(size):
    legend = Legend(TABLE, NAMES)
    shapes = {legend.attach(np.zeros((*size, 3), np.uint8), map_of(1, 2, size=size)).shape for _ in range(2)}
    assert len(shapes) == 1
