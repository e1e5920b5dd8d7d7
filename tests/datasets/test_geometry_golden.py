"""Sizes through the train and the test pipeline against those of the official code."""

import numpy as np
import pytest

from mmseg.datasets.transforms import Pad, RandomCrop, Resize
from tests.golden_cases import Case

CASE = Case("cffm", "geometry")
CROP = tuple(CASE.config["crop_size"])


@pytest.mark.parametrize("case", CASE["expected"]["test"], ids=lambda c: "x".join(map(str, c["input"])))
def test_network_input_size(case):
    resize = Resize(img_scale=CASE.config["img_scale"], size_divisor=CASE.config["size_divisor"])
    out = resize(dict(img=[np.zeros((*case["input"], 3), np.uint8)], rng=np.random.default_rng(0), meta={}))
    assert list(out["img"][0].shape[:2]) == case["output"]
    assert out["meta"]["scale_factor"].tolist() == case["scale_factor"]


@pytest.mark.parametrize(
    "case", CASE["expected"]["train"], ids=lambda c: "x".join(map(str, c["input"])) + f"-{c['ratio']}"
)
def test_train_sizes(case):
    resize = Resize(img_scale=tuple(CASE.config["img_scale"]), ratio_range=CASE.config["ratio_range"])
    scale = resize.scaled(case["ratio"])
    assert list(scale) == case["scale"]
    clip = dict(
        img=[np.zeros((*case["input"], 3), np.float32)],
        gt=[np.zeros(case["input"], np.uint8)],
        scale=scale,
        rng=np.random.default_rng(0),
        meta={},
    )
    sizes = lambda key: list(clip[key][0].shape[:2])  # noqa: E731
    clip = resize(clip)
    assert (sizes("img"), sizes("gt")) == (case["resized"], case["seg_resized"])
    crop = RandomCrop(CROP, cat_max_ratio=0.75)
    assert list(crop.offset_choices(*case["resized"])) == case["offset_choices"]
    clip = crop(clip)
    assert sizes("img") == case["cropped"]
    clip = Pad(size=CROP)(clip)
    assert (sizes("img"), sizes("gt")) == (case["padded"], case["seg_padded"])


def test_scales_are_drawn_from_the_whole_range():
    resize = Resize(img_scale=(853, 480), ratio_range=(0.5, 2.0))
    rng = np.random.default_rng(0)
    short = np.array([resize.draw_scale(rng)[1] for _ in range(2000)])
    assert 240 <= short.min() < 245 and 955 < short.max() < 960
    assert abs(short.mean() - 600) < 15
