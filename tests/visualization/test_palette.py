"""Colours of labels: separated, also for people with colour blindness."""

import numpy as np
import pytest

from mmseg.visualization import davis_palette, default_palette, palette_table
from mmseg.visualization.colour_space import as_seen, lab, smallest_distance
from mmseg.visualization.palette import bit_palette


def test_colour_space():
    """Values of the standard: white, black, and the primary red."""
    assert lab(np.array([[255, 255, 255], [0, 0, 0]])).round(2).tolist() == [[100, 0, 0], [0, 0, 0]]
    assert lab(np.array([255, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    red, green, blue = np.eye(3, dtype=np.uint8) * 255
    for sight in ("protanopia", "deuteranopia"):
        assert as_seen(np.array([255, 255, 255]), sight).tolist() == [255, 255, 255]
        one, other = (as_seen(colour, sight) for colour in (red, green))
        assert one[0] == one[1] and other[0] == other[1]  # both are yellow
        assert as_seen(blue, sight)[2] > 200


@pytest.mark.parametrize(
    ("count", "before", "after", "blind_before", "blind_after"),
    [(8, 30.5, 26.4, 3.5, 17.2), (20, 8.8, 26.4, 0.9, 17.2), (124, 1.5, 11.1, 0.1, 5.7), (255, 1.3, 7.4, 0.1, 3.7)],
)
def test_smallest_distances(count, before, after, blind_before, blind_after):
    """Of PASCAL's colours, which were taken before, and of today's."""
    for palette, normal, blind in [
        (bit_palette(count), before, blind_before),
        (default_palette(count), after, blind_after),
    ]:
        assert smallest_distance(palette) == pytest.approx(normal, abs=0.06)
        found = min(smallest_distance(palette, sight) for sight in ("protanopia", "deuteranopia"))
        assert found == pytest.approx(blind, abs=0.06)


def test_what_is_no_colour_of_a_class():
    """Black says "nothing is painted"; white and greys say nothing over a frame."""
    points = lab(np.array(default_palette(255)))
    assert points[:, 0].min() > 25 and points[:, 0].max() < 95
    assert np.hypot(points[:, 1], points[:, 2]).min() > 30


def test_a_palette_grows_at_its_end():
    assert default_palette(0) == []
    assert default_palette(255)[:9] == default_palette(9) and default_palette(3)[0] == [230, 159, 0]
    first = default_palette(5)
    first[0][0] = 1
    assert default_palette(5)[0][0] == 230  # nobody changes the colours of others


def test_palette_table():
    table = palette_table([[1, 2, 3], [4, 5, 6]], 2)
    assert table.shape == (256, 3) and table[1].tolist() == [4, 5, 6] and not table[2:].any()
    assert palette_table(None, 124)[:124].tolist() == default_palette(124)
    assert not palette_table(None, 300)[255].any() and not palette_table([], 3).any()


def test_object_numbers_have_the_colours_of_davis():
    table = palette_table(None, None)
    assert table[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert abs(table[:22].astype(int) - davis_palette()[:22]).max() <= 1
    assert len({tuple(colour) for colour in table[:255]}) == 255 and not table[255].any()
