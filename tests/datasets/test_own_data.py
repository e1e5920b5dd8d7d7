"""Data of one's own: other folders and names, masks for some frames, ignored values, colours instead of values."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import VSPWClipDataset, VSPWDataset, build_dataset, check_same_classes
from mmseg.errors import ConfigError, DataError
from mmseg.evaluation import VSPWEvaluator
from mmseg.writing.base import ResultOptions
from tests.datasets.vspw_folder import TEST, TRAIN, expect, frame_of, mask_of, write_vspw

CLASSES = ("name0", "name1", "name2")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def columns(*values):
    """A mask of 24x36 in equal columns of values or colours."""
    return np.repeat(np.array(values, np.uint8), 36 // len(values), axis=0)[None].repeat(24, 0)


# ---------------------------------------------------------------------- what masks mean


@pytest.mark.parametrize(
    ("reduced", "expected"), [(True, [255, 0, 255, 255, 2, 255]), (False, [0, 1, 255, 255, 3, 255])]
)
def test_any_values_are_ignored(tmp_path, reduced, expected):
    root = write_vspw(tmp_path, train=dict(a=12), val=dict(c=2), classes=4)
    for path in (root / "data").glob("*/mask/*.png"):
        save(path, columns(0, 1, 2, 77, 3, 255))
    given = dict(ignored_values=[2, 77], reduce_zero_label=reduced)
    val = VSPWDataset(root, "val", TEST, test_mode=True, **given)
    assert val.load_label(0, 0)[0, ::6].tolist() == expected
    train = VSPWDataset(root, "train", [TRAIN[0], dict(type="LoadLabels"), *TRAIN[2:]], **given)
    assert set(np.unique(train[0, (1,)]["gt_semantic_seg"])) <= set(expected)
    assert np.flatnonzero(train.label_counts()).tolist() == sorted(set(expected))
    expect("label value 77", VSPWDataset(root, "val", TEST, test_mode=True, reduce_zero_label=reduced).load_label, 0, 0)
    other = VSPWDataset(root, "val", TEST, test_mode=True, ignored_values=[77], reduce_zero_label=reduced)
    message = expect("ignored_values=[2, 77]", check_same_classes, train, other, "data.train", "data.val",
                     error=ConfigError)  # fmt: skip
    assert "[77] in data.val" in message


def test_everything_ignored_is_told_with_the_values(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), classes=2)
    for path in (root / "data").glob("*/mask/*.png"):
        save(path, columns(0, 2))
    message = expect("ignored_values=[2]", VSPWDataset(root, "train", TRAIN, ignored_values=[2]).label_counts)
    assert "the values [0, 2]" in message


PALETTE = {"floor": [128, 64, 0], "box": [0, 0, 255], "ball": [0, 1, 0]}


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P"])
def test_colour_masks_by_the_table_of_the_classes(tmp_path, kind):
    root = write_vspw(tmp_path, train=dict(a=12), val=dict(c=1), classes=3)
    (root / "classes.json").write_text(json.dumps(PALETTE))
    picture = columns(*PALETTE.values(), [0, 0, 0])
    Image.fromarray(picture).convert(kind, **(dict(palette=Image.Palette.ADAPTIVE) if kind == "P" else {})).save(
        mask_of(root, number=0)
    )
    val = VSPWDataset(root, "val", TEST, test_mode=True, colour_masks=True, ignored_values=[[0, 0, 0]])
    assert tuple(PALETTE) == val.CLASSES and list(PALETTE.values()) == val.PALETTE
    assert val.load_label(0, 0)[5, ::9].tolist() == [0, 1, 2, 255]
    black = VSPWDataset(root, "val", TEST, test_mode=True, colour_masks=True)
    message = expect("colour [0, 0, 0] (RGB) in 216 pixels", black.load_label, 0, 0)
    assert str(mask_of(root, number=0)) in message and "ignored_values" in message


def test_colour_masks_in_training(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), classes=3)
    for path in (root / "data").glob("*/mask/*.png"):
        save(path, columns(*PALETTE.values()))
    given = dict(classes=list(PALETTE), palette=list(PALETTE.values()), colour_masks=True)
    train = VSPWDataset(root, "train", TRAIN, **given)
    assert np.flatnonzero(train.label_counts()).tolist() == [0, 1, 2]
    assert set(np.unique(train[0, (2,)]["gt_semantic_seg"])) <= {0, 1, 2, 255}


@pytest.mark.parametrize(
    "given",
    [
        dict(colour_masks=True),  # no palette
        dict(colour_masks=True, palette=[[1, 1, 1], [2, 2, 2], [1, 1, 1]]),
        dict(colour_masks=True, palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]], ignored_values=[[2, 2, 2]]),
        dict(colour_masks=True, palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]], ignored_values=[7]),
        dict(ignored_values=[[1, 2, 3]]),
        dict(ignored_values=[256]),
        dict(ignored_values=7),
        dict(frame_suffix="jpg"),
        dict(mask_suffix="_labels.jpg"),
        dict(video_pattern=".*"),
        dict(video_pattern="("),
        dict(unlabelled="drop"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_work(tmp_path, given):
    root = write_vspw(tmp_path, val=dict(c=1), classes=3)
    cfg = dict(type="VSPWDataset", data_root=str(root), split="val", pipeline=TEST)
    with pytest.raises(ConfigError):
        build_dataset({**cfg, **given}, "data.val", test_mode=True)


@pytest.mark.parametrize("table", ['{"a": [0, 0]}', '{"a": [0, 0, 256]}', '{"a": "red"}', "{}"])
def test_colour_tables_that_make_no_sense(tmp_path, table):
    root = write_vspw(tmp_path, val=dict(c=1), classes=3)
    (root / "classes.json").write_text(table)
    expect("classes.json", VSPWDataset, root, "val", test_mode=True)


# ---------------------------------------------------------------------- masks for some frames


def sparse(root, *labelled, video="a"):
    """Leaves masks of these frames only."""
    for path in (root / "data" / video / "mask").iterdir():
        if int(path.stem) not in labelled:
            path.unlink()


def test_targets_are_labelled_and_references_any_frames(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=20, b=20), classes=3)
    sparse(root, 3, 17)  # 17 with frames before it, 3 with frames after it
    dataset = VSPWDataset(root, "train", TRAIN, unlabelled="keep")
    rng = np.random.default_rng(0)
    clips = {tuple(dataset[0, (seed,)]["img_metas"]["clip"]) for seed in range(20)}
    assert clips == {(8, 11, 14, 17), (12, 9, 6, 3)}
    labels = dataset[0, (0,)]["gt_semantic_seg"]  # (T, 1, H, W)
    assert (labels[:3] == 255).all() and (labels[3] != 255).any()
    assert {clip[-1] for clip in (dataset.draw_clip(20, rng) for _ in range(300))} == set(range(20))  # b: as ever
    assert dataset.label_counts().sum() == 22 * 24 * 36
    expect("18 of 20 frames without mask", VSPWDataset, root, "train", TRAIN)
    for labelled in ((3,), (17,)):  # references on one side only
        given = [number in labelled for number in range(20)]
        drawn = {tuple(dataset.draw_clip(20, rng, given)) for _ in range(20)}
        assert drawn == {(12, 9, 6, 3) if labelled == (3,) else (8, 11, 14, 17)}


def test_videos_without_a_labelled_target_are_told_or_dropped(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12, b=12), classes=3)
    sparse(root, 5, 6)
    message = expect("without a clip that is labelled: a (12 frames)", VSPWDataset, root, "train", TRAIN,
                     unlabelled="keep")  # fmt: skip
    assert "short_videos='drop'" in message
    dropped = VSPWDataset(root, "train", TRAIN, unlabelled="keep", short_videos="drop")
    assert [video.name for video in dropped.videos] == ["b"]
    mask_of(root, "a", 5).rename(mask_of(root, "a", 50))
    expect("1 of 2 masks without frame", VSPWDataset, root, "train", TRAIN, unlabelled="keep")


def test_clips_of_themask_are_labelled_in_all_frames(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=13), classes=3)
    sparse(root, 0, 4, 8, 12)
    expect("all frames of a clip", VSPWClipDataset, root, "train", TRAIN, unlabelled="keep", dilation=[-3])
    dataset = VSPWClipDataset(root, "train", TRAIN, unlabelled="keep", dilation=[-4])
    drawn = {tuple(dataset[0, (seed,)]["img_metas"]["clip"]) for seed in range(40)}
    assert drawn == {(0, 4), (4, 8), (8, 12), (4, 0), (8, 4), (12, 8)}


def test_scores_come_from_the_labelled_frames(tmp_path, caplog):
    root = write_vspw(tmp_path, val=dict(c=24), classes=3)
    sparse(root, 2, *range(10, 21), video="c")
    for path in (root / "data" / "c" / "mask").iterdir():
        save(path, columns(1, 2, 3))
    dataset = VSPWDataset(root, "val", TEST, test_mode=True, unlabelled="keep")
    [ours] = dataset.metrics(ResultOptions(metric_options=dict(min_frames=1)))
    assert "c: 12 of 24" in caplog.text
    assert dataset.videos[0].truths == [2, *range(10, 21)]  # of which a picture shows one
    whole, run = (VSPWEvaluator(3, min_frames=1) for _ in range(2))
    rng = np.random.default_rng(0)
    given = 0
    for frame in dataset.frames(0):
        pred = np.where(rng.random((24, 36)) < 0.02, np.uint8(0), columns(0, 1, 2))
        if frame.truth is not None:
            ours.update("c", frame.number, pred, frame.truth)
            whole.update("c", given, pred, frame.truth)
            given += 1
        if frame.number >= 10 and frame.truth is not None:
            run.update("c", frame.number - 10, pred, frame.truth)
    ours.end_video("c")
    found, counted, in_run = ours.compute(), whole.compute(), run.compute()
    assert found["counts"]["frames"] == given == 12
    assert found["mIoU"] == counted["mIoU"] and found["mmseg/mIoU"] == counted["mmseg/mIoU"]
    assert found["VC8"] == in_run["VC8"] != counted["VC8"]  # no window from frame 2 to frame 10
    assert "with masks" in ours.why_undefined("mIoU")
    with pytest.raises(DataError, match="second time"):
        ours.update("c", 3, pred, pred)
    with pytest.raises(DataError, match="taken as finished"):
        ours.update("c", 23, pred, pred)


# ---------------------------------------------------------------------- other folders, names and kinds of files


def moved(root, frames, masks, video="c"):
    """Moves the files of a video; `frames` and `masks` are formats of paths from root, of the number of a frame."""
    for path in sorted((root / "data" / video).glob("*/*")):
        target = root / (frames if path.parent.name == "origin" else masks).format(n=int(path.stem), video=video)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == path.suffix:
            path.rename(target)
        else:
            with Image.open(path) as picture:
                picture.save(target)
    shutil.rmtree(root / "data" / video)


LAYOUTS = {
    "DAVIS": ("JPEGImages/{video}/{n:05d}.bmp", "Annotations/{video}/{n:05d}.PNG",
              dict(frames_dir="JPEGImages", masks_dir="Annotations")),
    "folders inside": ("{video}/rgb/left/{n}.tif", "{video}/seg/{n}.png",
                       dict(frames_dir="{video}/rgb/left", masks_dir="{video}/seg")),
    "suffixes": ("all/{video}/{n:04d}_leftImg8bit.png", "all/{video}/{n:04d}_leftImg8bit_labels.png",
                 dict(frames_dir="all", masks_dir="all", frame_suffix="_leftImg8bit.png",
                      mask_suffix="_leftImg8bit_labels.png")),
    "side by side": ("all/{video}/{n}.png", "all/{video}/{n}_mask.png",
                     dict(frames_dir="all", masks_dir="all", frame_suffix=".png", mask_suffix="_mask.png")),
    "flat": ("images/{video}_{n:06d}.webp", "labels/{video}_{n:06d}.png",
             dict(frames_dir="images", masks_dir="labels")),
    "flat by pattern": ("images/{n}.of.{video}.jpg", "images/{n}.of.{video}.tif",
                        dict(frames_dir="images", masks_dir="images", frame_suffix=".jpg", mask_suffix=".tif",
                             video_pattern="[0-9]+[.]of[.](.*)")),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    frames, masks, given = LAYOUTS[layout]
    root = write_vspw(tmp_path, val={"c": 12, "b-2": 3}, classes=3)
    usual = VSPWDataset(root, "val", test_mode=True)
    expected = [(usual.load_label(0, i), usual.load_frame(0, i)) for i in range(12)]
    for video in ("c", "b-2"):
        moved(root, frames, masks, video)
    dataset = VSPWDataset(root, "val", TEST, test_mode=True, **given)
    assert [(video.name, video.num_frames) for video in dataset.videos] == [("c", 12), ("b-2", 3)]
    for number, (label, frame) in enumerate(expected):
        np.testing.assert_array_equal(dataset.load_label(0, number), label)
        assert np.abs(dataset.load_frame(0, number).astype(int) - frame).mean() < 6  # WebP loses something
    (root / "val.txt").unlink()
    expect("set split=None", VSPWDataset, root, "val", TEST, test_mode=True, **given)
    every = VSPWDataset(root, None, TEST, test_mode=True, **given)
    assert [video.name for video in every.videos] == ["b-2", "c"]


def test_layouts_that_are_not_there(tmp_path):
    root = write_vspw(tmp_path, val=dict(c=2), classes=3)
    expect("no videos in", VSPWDataset, root, None, test_mode=True, frames_dir="JPEGImages")
    moved(root, "flat/{video}{n}.jpg", "flat/{video}{n}.png")
    given = dict(frames_dir="flat", masks_dir="flat", frame_suffix=".jpg", mask_suffix=".png")
    assert "video_pattern" in expect("no name of a video in 'c0'", VSPWDataset, root, "val", test_mode=True, **given)
    (root / "val.txt").write_text("d\n")
    expect("no frame of it in", VSPWDataset, root, "val", test_mode=True, **given, video_pattern="(.)[0-9]")


def test_several_roots(tmp_path):
    one = write_vspw(tmp_path / "one", train=dict(a=12), val=dict(c=2), classes=3)
    two = write_vspw(tmp_path / "more" / "two", train=dict(a=12), val=dict(c=3), classes=3)
    dataset = build_dataset(
        dict(type="VSPWDataset", data_root=[str(one), str(two)], split="val", pipeline=TEST), "data.val", test_mode=True
    )
    assert [(v.name, v.num_frames) for v in dataset.videos] == [("one/c", 2), ("more/two/c", 3)]
    assert dataset.videos[1].frames[0] == str(frame_of(two, number=0)) and dataset.CLASSES == CLASSES
    assert len(VSPWDataset([one, two], "train", TRAIN)) == 2
    (two / "classes.json").write_text('["name0", "name1", "other"]')
    expect("class 2 is 'name2'", VSPWDataset, [one, two], "val", test_mode=True)
    (two / "classes.json").unlink()
    assert VSPWDataset([one, two], "val", test_mode=True).CLASSES == CLASSES
    expect(str(tmp_path / "three"), VSPWDataset, [one, tmp_path / "three"], "val", test_mode=True)
    relative = os.path.relpath(two)
    mixed = VSPWDataset([one, relative], "val", test_mode=True)
    assert [video.name for video in mixed.videos] == ["one/c", "more/two/c"]
    expect("are one folder", VSPWDataset, [two, one, f"{relative}/."], "train", error=ConfigError)


def test_masks_that_nobody_finds_are_told_with_where_they_were_looked_for(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), val=dict(c=2), classes=3)
    message = expect("no masks for the 1 videos", VSPWDataset, root, "train", TRAIN, unlabelled="keep",
                     short_videos="drop", masks_dir="masks/{video}", mask_suffix="_gt.png")  # fmt: skip
    assert f"{root}/masks/a/00000000_gt.png" in message
    val = VSPWDataset(root, "val", TEST, test_mode=True, unlabelled="keep", masks_dir="masks/{video}")
    assert "masks/{video}" in expect("evaluation of videos without masks", val.metrics, ResultOptions())


def test_folders_beside_the_pictures_of_a_flat_folder_are_told(tmp_path, caplog):
    root = write_vspw(tmp_path, val=dict(c=2), classes=3)
    given = dict(masks_dir="data/{video}/mask", test_mode=True)
    moved_to = root / "frames" / "c"
    shutil.copytree(root / "data" / "c" / "origin", moved_to)
    assert VSPWDataset(root, None, frames_dir="frames", **given).videos[0].num_frames == 2 and not caplog.text
    shutil.copy(moved_to / "00000000.jpg", root / "frames" / "cover_1.jpg")
    expect("no frame of it in", VSPWDataset, root, "val", frames_dir="frames", **given)
    assert "folders of pictures (c)" in caplog.text and "frames/{video}" in caplog.text
    assert VSPWDataset(root, "val", frames_dir="frames/{video}", **given).videos[0].num_frames == 2
