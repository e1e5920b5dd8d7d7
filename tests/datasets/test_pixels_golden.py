"""Single steps of the pipelines against the numbers of the official code."""

import numpy as np
import pytest
import torch

from mmseg.datasets.labels import reduce_labels
from mmseg.datasets.transforms import (
    Normalize,
    Pad,
    RandomFlip,
    Resize,
    TestPipeline,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from mmseg.structures import Frame
from tests.golden_cases import Case

CASE = Case("cffm", "pixels")
PARAMETERS = CASE["inputs"].pop("parameters")
NORM = {key: CASE.config[key] for key in ("mean", "std", "to_rgb")}


@pytest.fixture
def img():
    return CASE.inputs()["img"].numpy().astype(np.uint8)


@pytest.fixture
def seg():
    values = CASE.inputs()["seg"].numpy().astype(np.uint8)
    values[values == 125] = 255
    return values


def equal(name, value):
    assert value.dtype == CASE.arrays[name].dtype
    np.testing.assert_array_equal(value, CASE.arrays[name])


def run(transform, **results):
    return transform({"meta": {}, "rng": np.random.default_rng(0), **results})


def test_normalize_multiplies_by_the_double_reciprocal(img):
    normalize = Normalize(**NORM)
    CASE.check("normalize", normalize.normalize(img))
    # the table gives what the arithmetic gives
    np.testing.assert_array_equal(normalize.normalize(img), normalize.normalize(img.astype(np.float32)))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_one_distortion(img, name):
    steps = dict(brightness=adjust_brightness, contrast=adjust_contrast, saturation=adjust_saturation, hue=adjust_hue)
    equal(name, steps[name](img, PARAMETERS[name]))


@pytest.mark.parametrize("contrast_first", [True, False])
def test_all_distortions(img, contrast_first):
    out = adjust_brightness(img, PARAMETERS["brightness"])
    if contrast_first:
        out = adjust_contrast(out, PARAMETERS["contrast"])
    out = adjust_hue(adjust_saturation(out, PARAMETERS["saturation"]), PARAMETERS["hue"])
    if not contrast_first:
        out = adjust_contrast(out, PARAMETERS["contrast"])
    equal("all_contrast_first" if contrast_first else "all_contrast_last", out)


@pytest.mark.parametrize(("name", "scale"), [("resize", (61, 40)), ("shrink", (21, 15))])
def test_resize_of_image_and_labels(img, seg, name, scale):
    out = run(Resize(img_scale=scale), img=[img], gt=[seg])
    equal(f"{name}_img", out["img"][0])
    equal(f"{name}_seg", out["gt"][0])


def test_aligned_resize_is_two_resizes(img):
    equal("aligned_resize", run(Resize(img_scale=(61, 40), size_divisor=32), img=[img])["img"][0])


def test_aligned_resize_in_a_test_pipeline(img):
    pipeline = TestPipeline(
        [
            dict(type="LoadImageFromFile"),
            dict(
                type="MultiScaleFlipAug",
                img_scale=(61, 40),
                flip=False,
                transforms=[
                    dict(type="AlignedResize_clips", keep_ratio=True, size_divisor=32),
                    dict(type="RandomFlip_clips"),
                    dict(type="ImageToTensor_clips", keys=["img"]),
                    dict(type="Collect", keys=["img"]),
                ],
            ),
        ]
    )
    [view] = pipeline.views(Frame(0, "0", img))
    np.testing.assert_array_equal(view.inputs["img"].permute(1, 2, 0), CASE.arrays["aligned_resize"].astype(np.float32))


def test_flip(img):
    equal("flip_img", run(RandomFlip(prob=1.0), img=[img])["img"][0])


def test_pad_is_the_mean_colour_and_the_ignored_label(img, seg):
    out = run(Pad(size=(40, 48), pad_val=0, seg_pad_val=255), img=[Normalize(**NORM).normalize(img)], gt=[seg])
    CASE.check("pad_img", torch.from_numpy(out["img"][0]))
    equal("pad_seg", out["gt"][0])


def test_label_map(seg):
    equal("label_map", reduce_labels(seg))
    raw = np.arange(256, dtype=np.uint8)[None]
    assert reduce_labels(raw)[0, [0, 1, 124, 254, 255]].tolist() == [255, 0, 123, 253, 255]
