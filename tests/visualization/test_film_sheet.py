"""A video on one page."""

import numpy as np

from mmseg.visualization import legend_strip, overlay, palette_table
from mmseg.visualization.film_sheet import Shot, film_sheet

TABLE = palette_table(None, 4)
NAMES = ["floor", "box", "ball", "cup"]


def shot(number, **maps):
    return Shot(f"frame {number}", np.full((60, 80, 3), 40 * number, np.uint8), maps)


def test_lines_maps_and_legend():
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 2
    shots = [shot(n, ours=labels, truth=labels[:, ::-1] if n % 2 else None) for n in range(5)]
    sheet = film_sheet(shots, TABLE, NAMES, columns=3, width=80)
    strip = legend_strip([0, 2], NAMES, TABLE, 3 * 86 + 6)
    line = 20 + 60 + 6
    assert sheet.shape == (4 * line + len(strip), 3 * 86 + 6, 3)
    assert np.array_equal(sheet[-len(strip) :], strip)
    second = sheet[20:80, 92:172], sheet[line + 20 : line + 80, 92:172]
    assert np.array_equal(second[0], overlay(shots[1].frame, labels, TABLE))
    assert np.array_equal(second[1], overlay(shots[1].frame, labels[:, ::-1].copy(), TABLE))
    assert (sheet[line + 20 : line + 80, 6:86] == 0).all()  # no truth for the first: the frame itself
    assert (sheet[2 * line + 20 : 2 * line + 80, 178:] == 255).all()  # two shots in the last line


def test_frames_are_brought_to_the_width():
    sheet = film_sheet([shot(1, ours=np.ones((60, 80), np.uint8))], TABLE, None, columns=9, width=40)
    assert sheet.shape[1] == 40 + 12
