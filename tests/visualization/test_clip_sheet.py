"""Clips of training as sheets: titles, rows and the legend."""

import numpy as np

from mmseg.visualization import legend_strip, palette_table
from mmseg.visualization.clip_sheet import Clip, clip_picture, clip_sheet

TABLE = palette_table(None, 4)
SIZE = (30, 60)


def clip_of(label: int, frames: int = 2) -> Clip:
    pictures = [np.full((*SIZE, 3), 200, np.uint8)] * frames
    return Clip("a title", pictures, [None] * (frames - 1) + [np.full(SIZE, label, np.uint8)])


def test_one_title_above_all_rows():
    picture = clip_picture(clip_of(1), TABLE, 60)
    title, rows = picture[: -2 * 30 - 2 * 6], picture[-2 * 30 - 2 * 6 :]
    assert title.min() < 100 and picture.shape[1] == 2 * 66 + 6
    frames, between, labels = rows[:30], rows[30:36], rows[36:66]
    assert (between == 255).all() and (frames[:, 6:66] == 200).all() and (labels[:, 6:66] == 200).all()
    assert np.ptp(labels[:, 72:132].reshape(-1, 3), axis=0).max() == 0 and not (labels[:, 72:132] == 200).all()


def test_the_legend_is_of_all_clips():
    clips = [clip_of(2), clip_of(1), clip_of(2, frames=3)]
    sheet = clip_sheet(clips, TABLE, list("abcd"), 60)
    strip = legend_strip([2, 1], list("abcd"), TABLE, 3 * 66 + 6)
    assert np.array_equal(sheet[-len(strip) :], strip)
    assert len(sheet) == sum(len(clip_picture(clip, TABLE, 60)) for clip in clips) + len(strip)
    assert (sheet[:60, 2 * 66 + 6 :] == 255).all()  # paper beside a clip of two frames
