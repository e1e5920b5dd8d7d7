"""Reading the VSPW layout: what is found, and arguments that cannot work."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.datasets import RepeatDataset, VSPWDataset, build_dataset
from mmseg.datasets.vspw_classes import CLASSES, PALETTE
from mmseg.errors import ConfigError
from tests.datasets.vspw_folder import NORM, TEST, TRAIN, expect, frame_of, mask_of, write_vspw
from tests.golden_cases import Case


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


def test_the_test_split_needs_no_masks(root):
    for path in (root / "data" / "d" / "mask").iterdir():
        path.unlink()
    (root / "data" / "d" / "mask").rmdir()
    assert VSPWDataset(root, "test", test_mode=True).load_label(0, 0) is None
    prototypes = VSPWDataset(root, "train_val_generate_prototype", dilation=[], test_mode=True)
    assert [video.name for video in prototypes.videos] == ["a", "b", "c", "d"]


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


def test_names_of_videos_are_normalised(root):
    (root / "data" / "train").mkdir()
    (root / "data" / "a").rename(root / "data" / "train" / "a")
    (root / "val.txt").write_text("./c\ntrain//a/\n...x/../b\n")
    assert [video.name for video in VSPWDataset(root, "val", test_mode=True).videos] == ["c", "train/a", "b"]
    (root / "val.txt").write_text("b\nc\n./b\n")
    message = expect("'b' is listed twice", VSPWDataset, root, "val", test_mode=True)
    assert "val.txt, line 3" in message and "val.txt, line 1" in message
