"""The random parts of the pipelines, and the test pipeline's views."""

import cv2
import numpy as np
import pytest
import torch

from mmseg.datasets.transforms import (
    Collect,
    Compose,
    MultiScaleFlipAug,
    Normalize,
    PackClip,
    Pad,
    PhotoMetricDistortion,
    RandomCrop,
    RandomFlip,
    Resize,
    TestPipeline,
    adjust_brightness,
    adjust_contrast,
)
from mmseg.errors import ConfigError
from mmseg.structures import Flipped, Frame, Padded, Resized
from tests.datasets.vspw_folder import NORM, TEST

FLIP = [dict(type="RandomFlip")]


def picture(height=24, width=36, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clip(frames=2, labels=None, rng=0, **extra):
    results = dict(img=[picture(seed=i) for i in range(frames)], meta={}, rng=np.random.default_rng(rng), **extra)
    if labels is not None:
        results["gt"] = [labels.copy() for _ in range(frames)]
    return results


@pytest.mark.parametrize("value", [-31.7, -0.3, 0.6, 31.9])
def test_tables_equal_the_arithmetic(value):
    img = picture()
    np.testing.assert_array_equal(
        adjust_brightness(img, value), np.clip(img.astype(np.float32) + value, 0, 255).astype(np.uint8)
    )
    factor = 1 + value / 64
    np.testing.assert_array_equal(
        adjust_contrast(img, factor), np.clip(img.astype(np.float32) * factor, 0, 255).astype(np.uint8)
    )


def test_every_frame_is_distorted_on_its_own():
    same = picture()
    results = dict(img=[same] * 8, meta={}, rng=np.random.default_rng(3))
    out = PhotoMetricDistortion()(results)["img"]
    assert len({frame.tobytes() for frame in out}) > 5
    assert all(frame.dtype == np.uint8 for frame in out)
    np.testing.assert_array_equal(same, picture())  # the input is left alone


def test_distortion_leaves_a_frame_alone_as_often_as_it_should():
    rng, img = np.random.default_rng(0), picture(4, 4)
    distort = PhotoMetricDistortion()
    unchanged = sum(np.array_equal(distort.distort(img, rng), img) for _ in range(2000))
    assert abs(unchanged / 2000 - 1 / 16) < 0.02


def test_crop_is_shared_by_frames_and_labels():
    labels = np.arange(24 * 36, dtype=np.uint32).reshape(24, 36).astype(np.uint8)
    results = RandomCrop((10, 12))(clip(3, labels))
    corner = [
        (y, x)
        for y in range(15)
        for x in range(25)
        if np.array_equal(results["img"][0], picture()[y : y + 10, x : x + 12])
    ]
    [(y, x)] = corner
    np.testing.assert_array_equal(results["img"][2], picture(seed=2)[y : y + 10, x : x + 12])
    for part in results["gt"]:
        np.testing.assert_array_equal(part, labels[y : y + 10, x : x + 12])
    assert results["meta"]["img_shape"] == (10, 12, 3)


def test_crop_looks_for_mixed_labels_of_the_last_frame():
    one_class, border = np.zeros((24, 36), np.uint8), np.full((24, 36), 255, np.uint8)
    border[:, :18], border[:, 18:20] = 0, 1
    crop = RandomCrop((8, 8), cat_max_ratio=0.75)
    assert not crop.is_mixed(one_class)  # one class
    assert not crop.is_mixed(np.full((8, 8), 255, np.uint8))  # nothing labelled
    assert not crop.is_mixed(border[:, :20][:, 2:])  # 8:1
    assert crop.is_mixed(border[:, 16:24])  # 2:2, 255 is not counted
    hits = 0
    for seed in range(60):
        results = clip(2, one_class, rng=seed)
        results["gt"][1] = border
        hits += crop.is_mixed(crop(results)["gt"][1])
    assert hits > 30  # without the search about one in ten; eleven draws must not always succeed
    assert hits < 60


def test_exactly_three_quarters_is_too_much():
    labels = np.zeros((8, 8), np.uint8)
    labels[:2] = 1
    assert not RandomCrop((8, 8), cat_max_ratio=0.75).is_mixed(labels)
    labels[2, 0] = 1
    assert RandomCrop((8, 8), cat_max_ratio=0.75).is_mixed(labels)


def test_eleven_boxes_are_drawn_at_most():
    crop, rng = RandomCrop((8, 8), cat_max_ratio=0.75), np.random.default_rng(7)
    expected = np.random.default_rng(7)
    for _ in range(11):
        corner = crop.draw(24, 36, expected)
    results = dict(img=[picture()], gt=[np.zeros((24, 36), np.uint8)], meta={}, rng=rng)
    np.testing.assert_array_equal(crop(results)["img"][0], crop.crop(picture(), corner))


def test_small_frames_are_cropped_to_themselves_then_padded():
    results = Pad((40, 48), seg_pad_val=255)(RandomCrop((40, 48))(clip(1, np.ones((24, 36), np.uint8))))
    assert results["img"][0].shape == (40, 48, 3) and results["gt"][0][24:].min() == 255
    assert Pad(size_divisor=32)(clip(1))["img"][0].shape == (32, 64, 3)


def test_flip_is_shared_and_follows_the_probability():
    labels = np.tile(np.arange(36, dtype=np.uint8), (24, 1))
    flips = 0
    for seed in range(200):
        results = RandomFlip(prob=0.5)(clip(2, labels, rng=seed))
        flipped = results["meta"]["flip"]
        flips += flipped
        for i in range(2):
            np.testing.assert_array_equal(results["img"][i], picture(seed=i)[:, ::-1] if flipped else picture(seed=i))
            np.testing.assert_array_equal(results["gt"][i], labels[:, ::-1] if flipped else labels)
    assert 70 < flips < 130
    assert not RandomFlip()(clip())["meta"]["flip"]
    assert RandomFlip(flip_ratio=1.0)(clip())["meta"]["flip"]
    np.testing.assert_array_equal(RandomFlip(1.0, "vertical")(clip())["img"][0], picture()[::-1])


def test_resize_stretches_without_keep_ratio():
    results = Resize(img_scale=(50, 20), keep_ratio=False)(clip(1, np.ones((24, 36), np.uint8)))
    assert results["img"][0].shape == (20, 50, 3) and results["gt"][0].shape == (20, 50)


def test_nearest_takes_the_floor_of_the_source_position():
    labels = np.arange(36, dtype=np.uint8)[None].repeat(24, 0)
    out = Resize(img_scale=(61, 40))(clip(1, labels))["gt"][0]
    np.testing.assert_array_equal(out[0], np.floor(np.arange(out.shape[1]) * (36 / out.shape[1])).astype(np.uint8))


def test_normalised_clip_as_tensor():
    results = Collect(["img"])(PackClip()(Normalize(**NORM)(clip(2))))
    expected = (picture()[..., ::-1].astype(np.float64) - NORM["mean"]) / NORM["std"]
    assert results["img"].shape == (2, 3, 24, 36)
    np.testing.assert_allclose(results["img"][0].permute(1, 2, 0), expected, atol=1e-5)
    assert set(results) == {"img", "img_metas"}


def frame(**keys) -> Frame:
    return Frame(7, "name", picture(), **keys)


def test_one_view():
    [view] = TestPipeline(TEST).views(frame(wanted=False))
    img = view.inputs["img"]
    assert (view.number, view.wanted, view.size, img.dtype) == (7, False, (32, 64), torch.float32)
    assert view.steps == [Resized((24, 36)), Resized((32, 48))]
    resized = cv2.resize(cv2.resize(picture(), (48, 32)), (64, 32))
    np.testing.assert_array_equal(img.permute(1, 2, 0), Normalize(**NORM).normalize(resized))


def test_views_of_augmented_testing():
    views = TestPipeline(TEST).augmented().views(frame())
    wanted = []
    for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        size = (int(32 * r), int(48 * r))
        steps = [Resized((24, 36)), Resized(size)]
        wanted += [steps, [*steps, Flipped(tuple(-(-side // 32) * 32 for side in size))]]
    assert [view.steps for view in views] == wanted
    assert torch.equal(views[4].inputs["img"].flip(-1), views[5].inputs["img"])


def test_given_masks_follow_the_picture():
    """The same resizes (nearest), flip and padding (0); ids are those of the full-size mask."""
    given = np.zeros((24, 36), np.int64)
    given[4:20, 3:9], given[0, 35] = 200, 7  # the one pixel of 7 is lost when the mask is halved
    half = [dict(type="Resize"), dict(type="RandomFlip"), dict(type="Pad", size=(16, 20)), *TEST[1]["transforms"][2:]]
    pipeline = TestPipeline(with_aug(img_scale=(18, 12), flip=True, transforms=half))
    _, view = pipeline.views(frame(given=given))
    assert view.steps == [Resized((24, 36)), Flipped((12, 18)), Padded((12, 18))]
    assert view.inputs["objects"] == (7, 200) and view.inputs["given"].dtype == torch.int64
    expected = np.zeros((16, 20), np.int64)
    expected[:12, :18] = given[::2, ::2][:, ::-1]
    np.testing.assert_array_equal(view.inputs["given"], expected)
    [view] = TestPipeline(TEST).views(frame(given=given, objects=(200,)))
    assert view.inputs["objects"] == (200,)


def test_a_method_has_ratios_of_its_own():
    own = TestPipeline(TEST, augment_ratios=(0.5, 2.0))
    assert (own.num_views, own.augmented().num_views) == (1, 4)
    assert [view.steps[1].before for view in own.augmented().views(frame())] == [(16, 24)] * 2 + [(64, 96)] * 2


def with_aug(**keys):
    return [TEST[0], {**TEST[1], **keys}]


def test_ratios_and_scales_of_the_config_are_kept():
    def sizes(pipeline):
        return [view.steps[1].before for view in pipeline.views(frame())]

    assert sizes(TestPipeline(with_aug(img_ratios=[1.0, 2.0]))) == [(32, 48), (64, 96)]
    assert sizes(TestPipeline(with_aug(img_ratios=[1.0, 2.0]), aug_test=True)) == [(32, 48)] * 2 + [(64, 96)] * 2
    several = with_aug(img_scale=[(48, 32), (60, 40)])
    assert sizes(TestPipeline(several)) == [(32, 48), (40, 60)]
    assert sizes(TestPipeline(several, aug_test=True)) == [(32, 48)] * 2 + [(40, 60)] * 2
    assert sizes(TestPipeline(with_aug(img_scale=None, img_ratios=2.0))) == [(48, 72)]


def test_pipeline_without_multi_scale_wrapper():
    flat = [TEST[0], dict(type="Resize", img_scale=(48, 32)), *TEST[1]["transforms"][2:]]
    [view] = TestPipeline(flat).views(frame())
    assert view.size == (32, 48) and view.steps == [Resized((24, 36))] and TestPipeline(flat).num_views == 1
    with pytest.raises(ConfigError, match="MultiScaleFlipAug"):
        TestPipeline(flat, aug_test=True)


@pytest.mark.parametrize(
    ("cfg", "found"),
    [
        (dict(type="RandomCorp"), "'RandomCorp'"),
        (dict(type="RandomCrop", crop_size=(0, 3)), "crop_size.0 = 0"),
        (dict(type="RandomCrop", crop_size=(-3, 3)), "crop_size.0 = -3"),
        (dict(type="RandomCrop", crop_size=[4, 4, 4]), "crop_size = [4, 4, 4]"),
        (dict(type="RandomCrop", crop_size=(True, 3)), "crop_size.0 = True"),
        (dict(type="RandomCrop", crop_size=32), "crop_size = 32"),
        (dict(type="RandomCrop", crop_size=(3, 3), cat_max_ratio=1.5), "cat_max_ratio = 1.5"),
        (dict(type="RandomCrop", crop_size=(3, 3), ignore_index=256), "ignore_index = 256"),
        (dict(type="RandomFlip", prob=2.0), "prob = 2.0"),
        (dict(type="RandomFlip", prob=0.5, direction="diagonal"), "direction = 'diagonal'"),
        (dict(type="RandomFlip", prob=0.5, flip_ratio=0.2), "flip_ratio=0.2"),
        (dict(type="Pad"), "size=None"),
        (dict(type="Pad", size=(3, 3), size_divisor=2), "size_divisor=2"),
        (dict(type="Pad", size_divisor=0), "size_divisor = 0"),
        (dict(type="Pad", size=(3, 3), seg_pad_val=-1), "seg_pad_val = -1"),
        (dict(type="Normalize", mean=[0, 0], std=[1, 1, 1]), "mean = [0, 0]"),
        (dict(type="Normalize", mean=[0, 0, 0], std=[1, 0, 1]), "std.1 = 0"),
        (dict(type="Normalize", mean=[0, 0, 0], std=[1, 1, 1], to_rgb=1), "to_rgb = 1"),
        (dict(type="Resize", ratio_range=(0.5, 2)), "ratio_range without img_scale"),
        (dict(type="Resize", img_scale=[0, 0]), "img_scale.0 = 0"),
        (dict(type="Resize", img_scale=[(1, 2), (3, 4)]), "img_scale"),
        (dict(type="Resize", img_scale=(48.5, 32)), "img_scale.0 = 48.5"),
        (dict(type="Resize", img_scale=(48, 32), ratio_range=(2.0, 0.5)), "ratio_range = (2.0, 0.5)"),
        (dict(type="Resize", img_scale=(48, 32), ratio_range=(0, 2.0)), "ratio_range.0 = 0"),
        (dict(type="Resize", img_scale=(48, 32), multiscale_mode="x"), "multiscale_mode = 'x'"),
        (dict(type="PhotoMetricDistortion", contrast_range=(1.5, 0.5)), "contrast_range = (1.5, 0.5)"),
        (dict(type="PhotoMetricDistortion", brightness_delta=-1), "brightness_delta = -1"),
        (dict(type="PhotoMetricDistortion", hue_delta=1.5), "hue_delta = 1.5"),
        (dict(type="ImageToTensor", keys=["gt"]), "keys.0 = 'gt'"),
        (dict(type="Collect", keys="img"), "keys = 'img'"),
        (dict(type="LoadLabels", reduce_zero_label=1), "reduce_zero_label = 1"),
        (dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=[0, 0]), "img_scale.0 = 0"),
        (dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=[]), "img_scale = []"),
        (dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=(48, 32, 3)), "img_scale"),
        (dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=[(48, 32), (-1, 4)]), "img_scale.1.0 = -1"),
        (dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=(48, 32), img_ratios=[0]), "img_ratios.0 = 0"),
        (
            dict(type="MultiScaleFlipAug", transforms=FLIP, img_scale=(48, 32), flip_direction="vertical"),
            "flip_direction",
        ),
        (dict(type="MultiScaleFlipAug", transforms=5, img_scale=(48, 32)), "transforms = 5"),
    ],
)
def test_values_that_cannot_work(cfg, found):
    with pytest.raises(ConfigError) as caught:
        Compose([dict(type="LoadFrames"), cfg], "data.train.pipeline")
    assert "data.train.pipeline.1" in caught.value.found and found in caught.value.found
    assert caught.value.expected and caught.value.action


@pytest.mark.parametrize(
    "make",
    [
        lambda: Compose(dict(type="LoadFrames")),
        lambda: Resize()(clip()),
        lambda: MultiScaleFlipAug([]),
        lambda: MultiScaleFlipAug([], [(48, 32), (60, 40)], img_ratios=[1.0]),
        lambda: TestPipeline([TEST[0], TEST[1], dict(type="RandomFlip")]),
        lambda: TestPipeline([TEST[0]]).views(frame()),
    ],
)
def test_settings_that_cannot_work(make):
    with pytest.raises(ConfigError):
        make()


def test_a_frame_may_shrink_to_a_line_and_not_to_nothing():
    out = Resize(img_scale=(10, 3), ratio_range=(0.01, 0.02))(clip(1, np.ones((24, 36), np.uint8)))
    assert min(out["img"][0].shape) >= 1 and out["gt"][0].shape == out["img"][0].shape[:2]


def test_padding_is_ignored_unless_told_otherwise():
    labels = Pad((40, 48))(clip(1, np.ones((24, 36), np.uint8)))["gt"][0]
    assert (labels[24:] == 255).all() and (labels[:, 36:] == 255).all() and (labels[:24, :36] == 1).all()
    assert Pad((40, 48), seg_pad_val=0)(clip(1, np.ones((24, 36), np.uint8)))["gt"][0][30, 0] == 0


def test_void_does_not_make_a_crop_mixed():
    crop = RandomCrop((10, 10), cat_max_ratio=0.75)
    labels = np.full((10, 10), 255, np.uint8)
    labels[:5] = 3
    assert not crop.is_mixed(labels)  # one class and as much void
    labels[:] = 255
    labels[0, :2], labels[0, 2] = 3, 4
    assert crop.is_mixed(labels)  # 2:1 among the labelled pixels, 97 % void
    labels[0, :9] = 3
    labels[0, 9] = 4
    assert not crop.is_mixed(labels)  # 9:1 among the labelled pixels
