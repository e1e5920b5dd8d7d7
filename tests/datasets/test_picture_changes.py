"""Changes of pictures for synthetic motion: motions, crops, and the ranges that training draws them from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from mmseg.datasets import StaticImageDataset, VOSClipDataset
from mmseg.datasets.picture_changes import affine, resized_crop_box, resized_short_side
from tests.datasets.test_vos_training import write_static, write_video


def test_affine_turns_clockwise_and_keeps_the_centre():
    spot = np.zeros((41, 41), np.uint8)
    spot[2:5, 18:23] = 255  # at the top
    turned = np.asarray(affine(Image.fromarray(spot), 90.0, 1.0, 0.0))
    assert turned[18:23, 36:39].mean() > 200 and turned.sum() > 0.8 * spot.sum()
    larger = np.asarray(affine(Image.fromarray(spot), 0.0, 0.5, 0.0))
    assert larger[11:13, 19:22].any() and not larger[:8].any()
    sheared = np.asarray(affine(Image.fromarray(spot), 0.0, 1.0, 30.0))
    assert sheared[3].nonzero()[0].mean() == pytest.approx(20 + np.tan(np.pi / 6) * 17, abs=1)
    colours = affine(Image.new("RGB", (20, 20)), 45.0, 1.0, 0.0)
    assert colours.getpixel((0, 0)) == (124, 116, 104)


def test_crops_have_the_drawn_shape():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = resized_crop_box((80, 60), (0.36, 1.0), (3 / 4, 4 / 3), rng)
        assert 0 <= left < right <= 80 and 0 <= top < bottom <= 60
        assert 0.33 < (right - left) * (bottom - top) / 4800 <= 1
        assert 0.7 < (right - left) / (bottom - top) < 1.4


@pytest.mark.parametrize(
    ("size", "box"), [((200, 10), (93, 0, 106, 10)), ((10, 200), (0, 93, 10, 106))], ids=["wide", "high"]
)
def test_a_picture_in_which_no_crop_fits_gives_its_middle(size, box):
    """Of the aspect that comes nearest to that of the picture: 4 / 3 and 3 / 4."""
    assert resized_crop_box(size, (0.36, 1.0), (3 / 4, 4 / 3), np.random.default_rng(0)) == box


@pytest.mark.parametrize(
    ("size", "resized"),
    [((80, 60), (42, 32)), ((60, 80), (32, 42)), ((50, 50), (32, 32))],
    ids=["wide", "high", "square"],
)
def test_the_shorter_side_gets_the_size_that_is_asked_for(size, resized):
    assert resized_short_side(Image.new("L", size), 32, Resampling.NEAREST).size == resized


class Recorder(np.random.Generator):
    """Chances that remember the ranges of uniform numbers."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self.ranges = []

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return super().uniform(low, high)


def jitter(*widths: float) -> list[tuple[float, float]]:
    """The ranges of brightness, contrast and saturation, and of the hue."""
    return [(1 - width, 1 + width) for width in widths[:3]] + [(-width, width) for width in widths[3:]]


def test_training_draws_from_the_published_ranges(tmp_path):
    """GSFM specification, section 8: what the frames of a clip share, then what each of the three has of its own."""
    write_static(tmp_path / "still")
    write_video(tmp_path)
    rng = Recorder()
    StaticImageDataset(tmp_path / "still", crop_size=32).clip(0, rng)
    frame = [(-20, 20), (0.9, 1.1), (-10, 10), *jitter(0.1, 0.05, 0.05)]
    assert rng.ranges == [(0.8, 1.5), *jitter(0.1, 0.05, 0.05, 0.05), *frame * 3]

    rng = Recorder()
    VOSClipDataset(tmp_path, crop_size=32).clip(0, rng)
    frame = [*jitter(0.01, 0.01, 0.01), (-15, 15), (-10, 10)]
    clip = [*jitter(0.1, 0.03, 0.03), *frame * 3]
    assert rng.ranges[-len(clip) :] == clip
    crops = rng.ranges[: -len(clip)]  # an area and the logarithm of an aspect for every attempt
    assert set(crops) == {(0.36, 1.0), (np.log(3 / 4), np.log(4 / 3))}
