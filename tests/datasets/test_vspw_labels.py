"""What the masks of the VSPW layout mean: classes, the void label, counts."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.datasets import VSPWDataset, build_dataset
from mmseg.errors import ConfigError, DataError
from tests.datasets.vspw_folder import TEST, TRAIN, expect, mask_of, write_vspw


def test_own_classes(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), classes=5)
    dataset = VSPWDataset(root, "train", TRAIN)
    assert dataset.CLASSES == ("name0", "name1", "name2", "name3", "name4")
    assert (dataset.num_classes, dataset.PALETTE) == (5, None)
    named = VSPWDataset(root, "train", TRAIN, classes=list("vwxyz"), palette=[[i, 0, 0] for i in range(5)])
    assert tuple("vwxyz") == named.CLASSES and named.PALETTE[4] == [4, 0, 0]
    with pytest.raises(ConfigError, match="num_classes=6 with 5"):
        VSPWDataset(root, "train", TRAIN, num_classes=6)
    with pytest.raises(ConfigError, match="palette of 1"):
        VSPWDataset(root, "train", TRAIN, palette=[[0, 0, 0]])
    (root / "classes.json").write_text(json.dumps(["twice", "twice"]))
    with pytest.raises(DataError, match="'twice'"):
        VSPWDataset(root, "train", TRAIN)
    (root / "classes.json").write_text("{")
    with pytest.raises(DataError, match=r"classes\.json"):
        VSPWDataset(root, "train", TRAIN)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '["a", ""]', '["a\\u0000b"]', "[1]", '"abc"', "[" * 900 + "]" * 900, "null"]
)
def test_classes_file_that_makes_no_sense(root, text):
    (root / "classes.json").write_text(text)
    assert len(expect("classes.json", VSPWDataset, root, "val", test_mode=True)) < 600


def test_classes_file_that_is_none(root):
    os.mkfifo(root / "classes.json")
    expect("pipe", VSPWDataset, root, "val", test_mode=True)


def test_numbered_classes(root):
    assert VSPWDataset(root, "val", test_mode=True, num_classes=7).CLASSES[6] == "class_6"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_colours_instead_of_labels(root, mode):
    Image.new(mode, (36, 24)).save(mask_of(root))
    message = expect(str(mask_of(root)), VSPWDataset(root, "val", TEST, test_mode=True).load_label, 0, 1)
    assert "colours" in message


def test_palette_mask_is_read_as_stored(root):
    stored = np.random.default_rng(0).integers(1, 125, (24, 36), dtype=np.uint8)
    image = Image.fromarray(stored).convert("P")
    image.putdata(stored.ravel().tolist())
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(mask_of(root))
    np.testing.assert_array_equal(VSPWDataset(root, "val", test_mode=True).load_label(0, 1), stored - 1)


@pytest.mark.parametrize("value", [125, 200, 254])
def test_label_out_of_range(root, value):
    mask = np.full((24, 36), 3, np.uint8)
    mask[5, 6] = value
    Image.fromarray(mask).save(mask_of(root))
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    message = expect(f"label value {value} in 1 pixels", dataset.load_label, 0, 1)
    assert str(mask_of(root)) in message and "1..124" in message


def test_label_out_of_range_in_training(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=10), classes=5)
    for number in range(10):
        Image.fromarray(np.full((24, 36), 6, np.uint8)).save(mask_of(root, "a", number))
    expect("label value 6", VSPWDataset(root, "train", TRAIN).clip, 0, np.random.default_rng(0))


def zero_based(root):
    """Makes the masks of a set of five classes count from 0."""
    for path in (root / "data").glob("*/mask/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 0, 255, mask - 1).astype(np.uint8))


def test_one_switch_for_the_labels_of_training_and_testing(tmp_path):
    reduced = write_vspw(tmp_path / "one", train=dict(a=12), val=dict(c=3), classes=5)
    unreduced = write_vspw(tmp_path / "zero", train=dict(a=12), val=dict(c=3), classes=5)
    zero_based(unreduced)
    pipeline = [TRAIN[0], dict(type="LoadLabels"), *TRAIN[2:]]
    one = VSPWDataset(reduced, "train", pipeline)[0, (3,)]
    zero = VSPWDataset(unreduced, "train", pipeline, reduce_zero_label=False)[0, (3,)]
    assert torch.equal(one["gt_semantic_seg"], zero["gt_semantic_seg"]) and one["gt_semantic_seg"].max() == 255
    np.testing.assert_array_equal(
        VSPWDataset(reduced, "val", test_mode=True).load_label(0, 0),
        VSPWDataset(unreduced, "val", test_mode=True, reduce_zero_label=False).load_label(0, 0),
    )


@pytest.mark.parametrize(("of_data_set", "of_pipeline"), [(False, True), (True, False), (None, False)])
def test_two_switches_that_disagree(root, of_data_set, of_pipeline):
    pipeline = [TRAIN[0], dict(type="LoadAnnotations", reduce_zero_label=of_pipeline), *TRAIN[2:]]
    cfg = dict(type="VSPWDataset", data_root=str(root), split="train", pipeline=pipeline)
    if of_data_set is not None:
        cfg["reduce_zero_label"] = of_data_set
    message = expect(
        f"reduce_zero_label={of_data_set is not False} in the data set", build_dataset, cfg, error=ConfigError
    )
    assert f"reduce_zero_label={of_pipeline} in data.train.pipeline.1" in message
    agreeing = {**cfg, "reduce_zero_label": of_pipeline}
    assert build_dataset(agreeing).reduce_zero_label is of_pipeline


def write_masks(root, *values):
    """Every mask of the set in equal columns of these values."""
    for path in (root / "data").glob("*/mask/*.png"):
        Image.fromarray(np.repeat(np.array(values, np.uint8), 12)[None].repeat(24, 0)).save(path)


def test_label_counts(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12, b=11), classes=5)
    write_masks(root, 0, 1, 3, 255)
    counts = VSPWDataset(root, "train", TRAIN).label_counts()
    assert counts.shape == (256,) and counts.sum() == 23 * 48 * 24
    assert (counts[0], counts[2], counts[255]) == (23 * 12 * 24, 23 * 12 * 24, 23 * 24 * 24)
    assert VSPWDataset(root, "train", TRAIN).label_counts(4).sum() == 4 * 48 * 24
    counts = VSPWDataset(root, "train", [TRAIN[0], *TRAIN[2:]], reduce_zero_label=False).label_counts()
    assert np.flatnonzero(counts).tolist() == [0, 1, 3, 255]


def test_a_few_labels_among_many_masks_are_found(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12, b=11), classes=5)
    write_masks(root, 0, 255)
    Image.fromarray(np.full((24, 36), 2, np.uint8)).save(mask_of(root, "a", 7))
    assert VSPWDataset(root, "train", TRAIN).label_counts(3)[1] == 24 * 36


def test_nothing_labelled(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), classes=2)
    write_masks(root, 0, 255)
    message = expect("the values [0, 255]", VSPWDataset(root, "train", TRAIN).label_counts)
    assert "reduce_zero_label=True" in message and "set reduce_zero_label=False" in message
    write_masks(root, 255)
    zero_based = VSPWDataset(root, "train", [TRAIN[0], *TRAIN[2:]], reduce_zero_label=False)
    assert "set reduce_zero_label=True" in expect("the values [255]", zero_based.label_counts)
    write_masks(root, 7)
    expect("label value 7", VSPWDataset(root, "train", TRAIN).label_counts)
    for path in (root / "data" / "a" / "mask").iterdir():
        path.unlink()
    (root / "data" / "a" / "mask").rmdir()
    (root / "train.txt").rename(root / "test.txt")
    expect("no masks for the 1 videos", VSPWDataset(root, "test", TRAIN).label_counts)
