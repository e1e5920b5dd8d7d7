"""HFAN's pipelines for frame and flow against the numbers of the official code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmseg.datasets.transforms import (
    Normalize,
    Pad,
    PhotoMetricDistortion,
    RandomCrop,
    RandomFlip,
    Resize,
    ResizeToMultiple,
    TestPipeline,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from mmseg.models.segmentors.slide import window_boxes
from mmseg.structures import Frame
from tests.golden_cases import Case, fill

PIXELS, GEOMETRY = Case("hfan", "pixels"), Case("hfan", "geometry")
PARAMETERS = PIXELS["inputs"].pop("parameters")


def sample() -> dict:
    inputs = {name: value.numpy().astype(np.uint8) for name, value in PIXELS.inputs().items()}
    return dict(img=[inputs["frame"]], flow=[inputs["flow"]], gt=[inputs["seg"]], meta={}, rng=np.random.default_rng(0))


def six(results: dict) -> np.ndarray:
    return np.concatenate([results["img"][0], results["flow"][0]], axis=2)


def equal(name: str, value: np.ndarray, levels: int = 0) -> None:
    assert value.dtype == PIXELS.arrays[name].dtype
    assert np.abs(value.astype(int) - PIXELS.arrays[name].astype(int)).max() <= levels


@pytest.mark.parametrize(("name", "scale"), [("resize", (61, 40)), ("shrink", (21, 15))])
def test_resize(name, scale):
    out = Resize(img_scale=scale)(sample())
    equal(f"{name}_img", six(out))
    equal(f"{name}_seg", out["gt"][0])


def test_second_resize():
    out = ResizeToMultiple(size_divisor=32)(Resize(img_scale=(61, 40))(sample()))
    equal("resize_then_multiple_img", six(out))
    equal("resize_then_multiple_seg", out["gt"][0])


def test_flip_leaves_the_colours_of_flow():
    out = RandomFlip(prob=1.0)(sample())
    equal("flip_img", six(out))
    equal("flip_seg", out["gt"][0])


def test_normalize_and_pad():
    out = Normalize(**PIXELS.config)(sample())
    PIXELS.check("normalize", torch.from_numpy(six(out)))
    out = Pad(size=(29, 43), pad_val=0, seg_pad_val=0)(out)
    PIXELS.check("pad_img", torch.from_numpy(six(out)))
    equal("pad_seg", out["gt"][0])


def test_distortions():
    inputs, halves = sample(), []
    for key, name in (("img", "frame"), ("flow", "flow")):
        p, x = PARAMETERS[name], adjust_brightness(inputs[key][0], PARAMETERS[name]["brightness"])
        x = adjust_contrast(x, p["contrast"]) if name == "frame" else x
        x = adjust_hue(adjust_saturation(x, p["saturation"]), p["hue"])
        halves.append(x if name == "frame" else adjust_contrast(x, p["contrast"]))
    equal("photometric", np.concatenate(halves, axis=2))
    flow = adjust_hue(inputs["flow"][0], PARAMETERS["flow"]["hue"])
    equal("photometric_flow_hue", np.concatenate([inputs["img"][0], flow], axis=2))


def test_frame_and_flow_draw_their_own_distortions():
    results = sample()
    results["flow"] = [results["img"][0].copy()]
    out = PhotoMetricDistortion()(results)
    assert (out["img"][0] != out["flow"][0]).any()
    again = sample()
    again["flow"] = [again["img"][0].copy()]
    alone = PhotoMetricDistortion().distort(again["img"][0], np.random.default_rng(0))
    np.testing.assert_array_equal(out["img"][0], alone)  # the frame comes first


@pytest.mark.parametrize("case", GEOMETRY["expected"]["test"], ids=lambda c: f"{c['input']}-{c['scale']}")
def test_sizes_of_the_test_pipeline(case):
    results = dict(img=[np.zeros((*case["input"], 3), np.uint8)], scale=case["scale"], meta={}, rng=None)
    results = Resize(keep_ratio=True)(results)
    assert list(results["img"][0].shape[:2]) == case["resized"]
    if "scale_factor" in case:
        assert results["meta"]["scale_factor"].tolist() == case["scale_factor"]
    assert list(ResizeToMultiple(32)(results)["img"][0].shape[:2]) == case["output"]


@pytest.mark.parametrize("case", GEOMETRY["expected"]["windows"], ids=lambda c: str(c["size"]))
def test_windows(case):
    crop, stride = tuple(GEOMETRY.config["crop_size"]), tuple(GEOMETRY.config["stride"])
    boxes = window_boxes(tuple(case["size"]), crop, stride)
    assert [[top, left, bottom, right] for top, bottom, left, right in boxes] == case["windows"]


@pytest.mark.parametrize("case", GEOMETRY["expected"]["train"], ids=lambda c: f"{c['input']}-{c['ratio']}")
def test_sizes_of_the_train_pipeline(case):
    crop_size = tuple(GEOMETRY.config["crop_size"])
    resize = Resize(img_scale=tuple(GEOMETRY.config["img_scale"]), ratio_range=GEOMETRY.config["ratio_range"])
    scale = resize.scaled(case["ratio"])
    assert list(scale) == case["scale"]
    results = dict(img=[np.zeros((*case["input"], 3), np.uint8)], gt=[np.zeros(case["input"], np.uint8)], scale=scale)
    results = resize({**results, "meta": {}, "rng": np.random.default_rng(0)})
    assert list(results["img"][0].shape[:2]) == case["resized"]
    crop = RandomCrop(crop_size=crop_size)
    assert list(crop.offset_choices(*case["resized"])) == case["offset_choices"]
    results = crop(results)
    assert list(results["img"][0].shape[:2]) == case["cropped"]
    results = Pad(size=crop_size, pad_val=0, seg_pad_val=0)(results)
    assert list(results["img"][0].shape[:2]) == case["padded"] and list(results["gt"][0].shape) == case["seg_padded"]


class Offsets:
    """Draws given numbers."""

    def __init__(self, offsets: list) -> None:
        self.numbers = [number for pair in offsets for number in pair]
        self.drawn = 0

    def integers(self, high: int) -> int:
        self.drawn += 1
        return self.numbers[self.drawn - 1]


@pytest.mark.parametrize("number", range(3))
def test_which_crop_is_taken(number):
    case = Case("hfan", "crop_rule")
    given, expected = case["inputs"]["cases"][number], case["expected"][number]
    _, *recipe = given["seg"]
    seg = fill.blocks(*recipe).numpy().astype(np.uint8)
    if given["value_to_255"] is not None:
        seg[seg == given["value_to_255"]] = 255
    rows, columns = np.mgrid[: seg.shape[0], : seg.shape[1]].astype(np.uint8)
    rng = Offsets(given["offsets"])
    crop = RandomCrop(crop_size=(given["crop"],) * 2, cat_max_ratio=case.config["cat_max_ratio"])
    picture = np.stack([rows, columns, columns], axis=2)
    out = crop(dict(img=[picture], flow=[picture], gt=[seg], meta={}, rng=rng))
    for key in ("img", "flow"):
        assert out[key][0][0, 0, :2].tolist() == expected["offset"]
    assert rng.drawn == 2 * expected["drawn"]


@pytest.mark.parametrize("name", ["test_pipeline", "test_pipeline_aug"])
def test_tensors_of_the_test_pipeline(name):
    case = Case("hfan", name)
    pictures = {key: value.numpy().astype(np.uint8) for key, value in case.inputs().items()}
    pipeline = TestPipeline([dict(type="LoadImagesFromFile"), case.config])
    views = pipeline.views(Frame(0, "00000", pictures["frame"], flow=pictures["flow"]))
    assert len(views) == len(case["outputs"])
    for number, view in enumerate(views):
        expected = torch.from_numpy(case.arrays[f"img{number}"])
        torch.testing.assert_close(view.inputs["img"], expected, atol=1e-4, rtol=0)
