"""Reading the VSPW layout: what is found, and what bad input gets."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.datasets import RepeatDataset, VSPWDataset, build_dataset
from mmseg.datasets.vspw_classes import CLASSES, PALETTE
from mmseg.errors import ConfigError, DataError
from tests.datasets.vspw_folder import NORM, TEST, TRAIN, write_vspw
from tests.golden_cases import Case


@pytest.fixture
def root(tmp_path):
    return write_vspw(tmp_path, train=dict(a=12, b=11), val=dict(c=5), test=dict(d=4))


def mask_of(root, video="c", number=1):
    return root / "data" / video / "mask" / f"{number:08d}.png"


def frame_of(root, video="c", number=1):
    return root / "data" / video / "origin" / f"{number:08d}.jpg"


def test_names_and_colours_are_the_official_ones():
    expected = Case("cffm", "classes_palette")["expected"]
    assert list(CLASSES) == expected["classes"]
    assert expected["palette"] == PALETTE


def test_stream_view(root):
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    assert [video.name for video in dataset.videos] == ["c"]
    frame, labels = dataset.load_frame(0, 2), dataset.load_label(0, 2)
    np.testing.assert_array_equal(frame, cv2.imread(str(frame_of(root, number=2))))
    raw = cv2.imread(str(mask_of(root, number=2)), cv2.IMREAD_UNCHANGED).astype(int)
    np.testing.assert_array_equal(labels, np.where(raw == 0, 255, raw - 1))
    assert (dataset.CLASSES, dataset.PALETTE, dataset.num_classes) == (CLASSES, PALETTE, 124)


def test_training_clip(root):
    dataset = VSPWDataset(root, "train", TRAIN)
    clip = dataset[1, (0, 5)]
    assert clip["img"].shape == (4, 3, 32, 32) and clip["img"].dtype == torch.float32
    assert clip["gt_semantic_seg"].shape == (4, 1, 32, 32) and clip["gt_semantic_seg"].dtype == torch.int64
    meta = clip["img_metas"]
    assert meta["video"] == "b" and meta["filename"] == dataset.videos[1].frames[meta["frame"]]
    assert meta["ori_shape"] == (24, 36, 3)
    again = dataset[1, (0, 5)]
    assert torch.equal(clip["img"], again["img"])
    assert not torch.equal(clip["img"], dataset[1, (0, 6)]["img"])


def test_official_config_dict(root):
    cfg = dict(
        type="RepeatDataset",
        times=50,
        dataset=dict(
            type="VSPWDataset2",
            data_root=str(root),
            img_dir="images/training",
            ann_dir="annotations/training",
            split="train",
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations", reduce_zero_label=True),
                dict(type="Resize", img_scale=(48, 32), ratio_range=(0.5, 2.0), process_clips=True),
                dict(type="RandomCrop_clips", crop_size=(32, 32), cat_max_ratio=0.75),
                dict(type="RandomFlip_clips", prob=0.5),
                dict(type="PhotoMetricDistortion_clips"),
                dict(type="Normalize_clips", **NORM),
                dict(type="Pad_clips", size=(32, 32), pad_val=0, seg_pad_val=255),
                dict(type="DefaultFormatBundle_clips"),
                dict(type="Collect", keys=["img", "gt_semantic_seg"]),
            ],
            dilation=[-9, -6, -3],
        ),
    )
    dataset = build_dataset(cfg)
    assert isinstance(dataset, RepeatDataset) and len(dataset) == 100 and dataset.num_classes == 124
    ours = VSPWDataset(root, "train", TRAIN)
    assert torch.equal(dataset[51, (1, 2)]["img"], ours[1, (1, 2)]["img"])


def test_hidden_files_and_others_do_not_count(root):
    for folder, name in (("origin", "._00000000.jpg"), ("origin", ".DS_Store"), ("origin", "Thumbs.db")):
        (root / "data" / "c" / folder / name).write_bytes(b"\x00")
    (root / "data" / "c" / "mask" / "._00000000.png").write_bytes(b"\x00")
    assert len(VSPWDataset(root, "val", TEST, test_mode=True).videos[0].frames) == 5


def test_split_file_is_read_with_care(root):
    (root / "val.txt").write_bytes(b"\xef\xbb\xbf c \r\n\r\n  \na")
    assert [video.name for video in VSPWDataset(root, "val", test_mode=True).videos] == ["c", "a"]


def test_frames_may_be_png_and_names_may_be_unicode(tmp_path):
    root = write_vspw(tmp_path / "données", val={"vidéo_日": 2})
    folder = root / "data" / "vidéo_日" / "origin"
    picture = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    (folder / "00000000.jpg").unlink()
    (folder / "00000000.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    np.testing.assert_array_equal(dataset.load_frame(0, 0), picture)
    assert dataset.load_label(0, 0).shape == (24, 36)


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


def test_the_test_split_needs_no_masks(root):
    for path in (root / "data" / "d" / "mask").iterdir():
        path.unlink()
    (root / "data" / "d" / "mask").rmdir()
    assert VSPWDataset(root, "test", test_mode=True).load_label(0, 0) is None
    prototypes = VSPWDataset(root, "train_val_generate_prototype", dilation=[], test_mode=True)
    assert [video.name for video in prototypes.videos] == ["a", "b", "c", "d"]


def expect(message, function, *args, error=DataError, **kwargs):
    """The error's text, which must hold `message` and say what is expected and what to do."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert message in str(caught.value)
    assert caught.value.expected and caught.value.action
    return str(caught.value)


def test_missing_data_root(tmp_path):
    expect(str(tmp_path / "none"), VSPWDataset, tmp_path / "none")


def test_missing_empty_or_binary_split_file(root):
    expect(str(root / "trian.txt"), VSPWDataset, root, "trian")
    (root / "val.txt").write_text(" \n\n")
    expect("names no video", VSPWDataset, root, "val", test_mode=True)
    (root / "val.txt").write_bytes(b"\xff\xfe\x00\xd8")
    expect("cannot be read", VSPWDataset, root, "val", test_mode=True)


def test_video_listed_twice(root):
    (root / "val.txt").write_text("c\nc\n")
    expect("'c' is listed twice", VSPWDataset, root, "val", test_mode=True)


def test_missing_video_folder(root):
    (root / "val.txt").write_text("c\nnone\n")
    expect(os.path.join(root, "data", "none", "origin"), VSPWDataset, root, "val", test_mode=True)


def test_video_without_frames(root):
    for path in (root / "data" / "c" / "origin").iterdir():
        path.unlink()
    expect("no frames in", VSPWDataset, root, "val", test_mode=True)


def test_frame_without_mask(root):
    mask_of(root, number=3).unlink()
    expect(str(mask_of(root, number=3)), VSPWDataset, root, "val", test_mode=True)


def test_split_without_masks_that_needs_them(root):
    for path in (root / "data" / "c" / "mask").iterdir():
        path.unlink()
    (root / "data" / "c" / "mask").rmdir()
    expect("5 of 5 frames without mask", VSPWDataset, root, "val", test_mode=True)


def test_frame_removed_after_the_listing(root):
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    frame_of(root).unlink()
    expect(str(frame_of(root)), dataset.load_frame, 0, 1)


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5])
def test_truncated_frame(root, keep):
    data = frame_of(root).read_bytes()
    frame_of(root).write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    expect(str(frame_of(root)), dataset.load_frame, 0, 1)


def test_frame_cut_off_and_filled_with_zeros(root):
    data = frame_of(root).read_bytes()
    half = len(data) * 2 // 3
    frame_of(root).write_bytes(data[:half] + bytes(len(data) - half))
    expect("truncated", VSPWDataset(root, "val", TEST, test_mode=True).load_frame, 0, 1)


def test_frame_with_a_tail_is_fine(root):
    data = frame_of(root).read_bytes()
    frame_of(root).write_bytes(data + b"maker note of a camera")
    assert VSPWDataset(root, "val", TEST, test_mode=True).load_frame(0, 1).shape == (24, 36, 3)


def test_truncated_png_frame(root):
    picture = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    frame_of(root).with_suffix(".png").write_bytes(data[: len(data) // 2])
    frame_of(root).unlink()
    expect("00000001.png", VSPWDataset(root, "val", TEST, test_mode=True).load_frame, 0, 1)


@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_truncated_mask(root, keep):
    data = mask_of(root).read_bytes()
    mask_of(root).write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    expect(str(mask_of(root)), VSPWDataset(root, "val", TEST, test_mode=True).load_label, 0, 1)


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


def test_mask_of_another_size_in_training(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=10))
    for number in range(10):
        Image.fromarray(np.ones((12, 18), np.uint8)).save(mask_of(root, "a", number))
    message = expect("mask of 18x12", VSPWDataset(root, "train", TRAIN).clip, 0, np.random.default_rng(0))
    assert "frame of 36x24" in message and "data/a/mask" in message


def test_frames_of_two_sizes_in_one_clip(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=10))
    cv2.imwrite(str(frame_of(root, "a", 3)), np.zeros((30, 36, 3), np.uint8))
    cv2.imwrite(str(mask_of(root, "a", 3)), np.zeros((30, 36), np.uint8))
    dataset = VSPWDataset(root, "train", TRAIN)
    expect("one size", dataset.clip, 0, np.random.default_rng(0))


@pytest.mark.parametrize(
    "value",
    [
        dict(dilation=5),
        dict(dilation=[-3, -6]),
        dict(dilation=[3]),
        dict(dilation=["a"]),
        dict(dilation=[-1.5]),
        dict(short_videos="x"),
        dict(num_classes=True),
        dict(num_classes=0),
        dict(classes="abc"),
        dict(palette=[[1, 2]]),
        dict(split=""),
        dict(data_root=5),
        dict(pipeline="LoadFrames"),
        dict(reduce_zero_label=1),
        dict(test_mode="no"),
    ],
)
def test_values_that_cannot_work(root, value):
    cfg = {**dict(type="VSPWDataset", data_root=str(root), split="train", pipeline=TRAIN), **value}
    expect(f"data.train.{next(iter(value))}", build_dataset, cfg, error=ConfigError)


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


def test_an_index_alone_gives_another_clip_each_time(root):
    dataset = VSPWDataset(root, "train", TRAIN)
    clips = [dataset[1] for _ in range(4)]
    assert {clip["img_metas"]["video"] for clip in clips} == {"b"}
    assert len({clip["img"].numpy().tobytes() for clip in clips}) > 1
    assert len(list(dataset)) == 2  # indexing ends
    expect("test mode", VSPWDataset(root, "val", TEST, test_mode=True).__getitem__, 0, error=ConfigError)


def test_unknown_key_and_missing_loader(root):
    cfg = dict(type="VSPWDataset", data_root=str(root), split="train", pipelin=TRAIN)
    expect("'pipelin'", build_dataset, cfg, error=ConfigError)
    no_labels = [step for step in TRAIN if step["type"] != "LoadLabels"]
    expect(
        "gt_semantic_seg", VSPWDataset(root, "train", no_labels).clip, 0, np.random.default_rng(0), error=ConfigError
    )


def test_thousands_of_videos_are_listed_quickly(tmp_path):
    """No file is opened: the files here are empty."""
    names = [f"v{i}" for i in range(300)]
    for name in names:
        for folder, suffix in (("origin", "jpg"), ("mask", "png")):
            (tmp_path / "data" / name / folder).mkdir(parents=True)
            for t in range(12):
                (tmp_path / "data" / name / folder / f"{t}.{suffix}").touch()
    (tmp_path / "train.txt").write_text("\n".join(names))
    dataset = VSPWDataset(tmp_path, "train", TRAIN)
    assert len(dataset) == 300


def test_frames_come_in_natural_order_whatever_the_folder_says(tmp_path):
    """Made in scrambled order, so that a folder listing without sorting would show; frames and masks stay pairs."""
    (tmp_path / "val.txt").write_text("v\n")
    for folder in ("origin", "mask"):
        (tmp_path / "data" / "v" / folder).mkdir(parents=True)
    numbers = list(range(1, 25))
    for folder, suffix in (("mask", "PNG"), ("origin", "JPG")):
        for number in np.random.default_rng(0).permutation(numbers):
            image = Image.fromarray(np.full((24, 36), number, np.uint8))
            image.save(tmp_path / "data" / "v" / folder / f"{number}.{suffix}", quality=100)
    dataset = VSPWDataset(tmp_path, "val", test_mode=True)
    assert [int(dataset.load_frame(0, i).mean()) for i in range(24)] == numbers
    assert [int(dataset.load_label(0, i)[0, 0]) + 1 for i in range(24)] == numbers


@pytest.mark.parametrize("clash", ["origin/00000001.png", "mask/00000001.PNG"])
def test_two_files_of_one_stem(root, clash):
    (root / "data" / "c" / clash).touch()
    expect("have the same stem", VSPWDataset, root, "val", test_mode=True)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc", "..", ".", "a/..", "/", "a\0b", "a\x1bb"])
def test_split_file_that_leaves_the_data_folder(root, name):
    (root / "val.txt").write_text(f"c\n\n  {name}  \n")
    message = expect(repr(name), VSPWDataset, root, "val", test_mode=True)
    assert f"{root / 'val.txt'}, line 3" in message


def test_names_of_videos_are_normalised(root):
    (root / "data" / "train").mkdir()
    (root / "data" / "a").rename(root / "data" / "train" / "a")
    (root / "val.txt").write_text("./c\ntrain//a/\n...x/../b\n")
    assert [video.name for video in VSPWDataset(root, "val", test_mode=True).videos] == ["c", "train/a", "b"]
    (root / "val.txt").write_text("b\nc\n./b\n")
    message = expect("'b' is listed twice", VSPWDataset, root, "val", test_mode=True)
    assert "val.txt, line 3" in message and "val.txt, line 1" in message


def test_a_video_of_two_splits_is_no_second_prototype(root):
    (root / "val.txt").write_text("c\na\n")
    message = expect("'a' is listed twice", VSPWDataset, root, "train_val_generate_prototype", test_mode=True)
    assert "val.txt, line 2" in message and "train.txt, line 1" in message


def test_split_file_that_is_none(root):
    (root / "val.txt").unlink()
    os.mkfifo(root / "val.txt")
    expect("pipe", VSPWDataset, root, "val", test_mode=True)
    (root / "val.txt").unlink()
    (root / "val.txt").mkdir()
    expect("a folder", VSPWDataset, root, "val", test_mode=True)
