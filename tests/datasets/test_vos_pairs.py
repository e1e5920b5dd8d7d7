"""Frames with flow and masks: which files belong together, what the network gets, what masks mean, what is refused."""

from __future__ import annotations

import logging
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.config import load_config
from mmseg.datasets import VOSDataset, build_dataset
from mmseg.datasets.frame_names import frame_name
from mmseg.errors import ConfigError, DataError
from mmseg.evaluation.object_scores import foreground_scores
from mmseg.writing.base import ResultOptions
from tests.datasets.vos_folder import SIZE, vos_config, write_vos
from tests.golden_cases import Case

DIRS = dict(img1_dir="frame/val", img2_dir="flow/val", ann_dir="mask/val")
LOAD = [dict(type="LoadImagesFromFile"), dict(type="LoadAnnotations"), dict(type="DefaultFormatBundle"),
        dict(type="Collect", keys=["img", "gt_semantic_seg"])]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return write_vos(tmp_path, {"bear": 4, "black-swan": 3})


def test_official_pairs(tmp_path):
    """Of a frame nothing but its name is looked at."""
    case = Case("hfan", "pairs")
    for name in case["inputs"]["files"]:
        path = tmp_path / "frame/val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "list.txt").write_text("\n".join(case["inputs"]["split"]))
    config, expected = {**case.config, "data_root": str(tmp_path)}, case["expected"]
    dataset = build_dataset(config)
    listed = build_dataset({**config, "split": "list.txt"})
    for found, right in ((dataset, expected["all"]), (listed, expected["split"])):
        assert found.pairs == [tuple(str(tmp_path / name) for name in triple) for triple in right]
    assert (list(dataset.CLASSES), dataset.PALETTE) == (expected["classes"], expected["palette"])
    assert dataset.ignore_index == expected["ignore_index"]
    repeated = build_dataset(dict(type="RepeatDataset", times=15, dataset=config))
    assert len(repeated) == expected["repeat15_length"]
    assert len(build_dataset([config, config])) == expected["list_of_two_length"]


@pytest.mark.parametrize("folders", [False, True])
def test_both_layouts_give_the_same_videos(tmp_path, folders):
    write_vos(tmp_path, {"bear": 4, "black-swan": 3}, folders=folders)
    dataset = VOSDataset(**DIRS, data_root=tmp_path, test_mode=True)
    assert [(v.name, v.num_frames) for v in dataset.videos] == [("bear", 4), ("black-swan", 3)]
    frames = list(dataset.frames(1))
    assert [(f.number, f.name) for f in frames] == [(t, f"{t:05d}") for t in range(3)]
    assert frames[0].image.shape == frames[0].flow.shape == (*SIZE, 3)
    assert np.unique(frames[2].truth).tolist() == [0, 1]
    folder = tmp_path / "flow/val"
    expected = cv2.imread(str(folder / ("black-swan/00002.jpg" if folders else "black-swan_00002.jpg")))
    np.testing.assert_array_equal(frames[2].flow, expected)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("bear_00007", ("bear", "00007")),
        ("bear/00007", ("bear", "00007")),
        ("bear/bear_00007", ("bear", "00007")),
        ("a_b_1_00002", ("a_b_1", "00002")),
        ("set/bear_00007", ("set/bear", "00007")),
        ("holiday", ("frames", "holiday")),
    ],
)
def test_names_of_frames(path, expected):
    assert frame_name(path) == expected


@pytest.mark.parametrize("split", [None, "list.txt"])
def test_suffixes_in_any_case(root, split, caplog):
    """Cameras and Windows write .JPG; a folder may have ".jpg" in its name."""
    shutil.move(root / "frame", root / "pairs.jpg")
    (root / "list.txt").write_text("bear_00001\nblack-swan_00000\n")
    dirs = dict(DIRS, img1_dir="pairs.jpg/val")
    for folder, suffix in (("pairs.jpg", ".JPG"), ("flow", ".Jpg"), ("mask", ".PNG")):
        for path in (root / folder / "val").iterdir():
            path.rename(path.with_suffix(suffix))
    dataset = VOSDataset(**dirs, data_root=root, split=split, test_mode=True)
    frames = list(dataset.frames(0))
    assert [frame.name for frame in frames] == (["00001"] if split else [f"{t:05d}" for t in range(4)])
    assert all(frame.truth.any() for frame in frames) and not caplog.records
    (root / "pairs.jpg/val/bear_00000.JPG").rename(root / "pairs.jpg/val/bear_00000.jpg")
    assert len(VOSDataset(**dirs, data_root=root)) == 1
    assert "6 files like bear_00001.JPG are not taken for frames" in caplog.text
    shutil.copy(root / "mask/val/bear_00000.PNG", root / "mask/val/bear_00000.png")
    with pytest.raises(DataError, match="have the same stem"):
        VOSDataset(**dirs, data_root=root, split=split)


def test_absolute_folders_need_no_root(root):
    dataset = VOSDataset(img1_dir=f"{root}/frame/val", img2_dir=f"{root}/flow/val", ann_dir=f"{root}/mask/val")
    assert len(dataset) == 7 and dataset.pairs[0][1] == f"{root}/flow/val/bear_00000.jpg"


def test_every_frame_is_a_training_item(root):
    dataset = VOSDataset(**DIRS, data_root=root, pipeline=LOAD)
    sample = dataset[5, 0]
    assert sample["img_metas"]["filename"] == str(root / "frame/val/black-swan_00001.jpg")
    img = sample["img"][0].permute(1, 2, 0).numpy()  # (H, W, 6): frame BGR, then flow BGR
    np.testing.assert_array_equal(img[..., :3], cv2.imread(str(root / "frame/val/black-swan_00001.jpg")))
    np.testing.assert_array_equal(img[..., 3:], cv2.imread(str(root / "flow/val/black-swan_00001.jpg")))
    assert sample["gt_semantic_seg"].unique().tolist() == [0, 1]


def test_published_pipeline(root, tmp_path):
    write_vos(tmp_path, {"bear": 2}, "train")
    dataset = build_dataset(load_config(vos_config(tmp_path / "c.py", tmp_path)).data.train)
    a, b, again = dataset[1, (3,)], dataset[1, (4,)], dataset[1, (3,)]
    assert a["img"].shape == (1, 6, 64, 64) and a["gt_semantic_seg"].shape == (1, 1, 64, 64)
    assert (a["img"] == again["img"]).all() and (a["img"] != b["img"]).any()


# ---------------------------------------------------------------------- what masks mean


@pytest.mark.parametrize("mask_values", ["auto", "labels"])
def test_packaged_masks_are_taken_as_stored(root, mask_values):
    path = root / "mask/val/bear_00001.png"
    mask = np.zeros(SIZE, np.uint8)
    mask[5:20, 5:20], mask[:3] = 1, 255
    cv2.imwrite(str(path), mask)
    dataset = VOSDataset(**DIRS, data_root=root, pipeline=LOAD, mask_values=mask_values)
    np.testing.assert_array_equal(dataset[1, 0]["gt_semantic_seg"][0, 0], mask)


def test_masks_of_0_and_255_are_objects_and_said_to_be(tmp_path, caplog):
    write_vos(tmp_path, {"bear": 3}, object_value=255)
    dataset = VOSDataset(**DIRS, data_root=tmp_path, pipeline=LOAD)
    assert dataset[0, 0]["gt_semantic_seg"].unique().tolist() == [0, 1]
    assert "255 is taken for the object" in caplog.text and len(caplog.records) == 1
    assert dataset.label_counts()[1] == 3 * 24 * 24
    ignored = VOSDataset(**DIRS, data_root=tmp_path, pipeline=LOAD, mask_values="labels")
    assert ignored[0, 0]["gt_semantic_seg"].unique().tolist() == [0, 255]


def test_masks_of_several_objects(tmp_path):
    write_vos(tmp_path, {"bear": 3}, object_value=7)
    with pytest.raises(DataError, match=r"(?s)bear_00000.png: values \[7\].*mask_values='objects'"):
        VOSDataset(**DIRS, data_root=tmp_path, pipeline=LOAD)[0, 0]
    merged = VOSDataset(**DIRS, data_root=tmp_path, pipeline=LOAD, mask_values="objects")
    assert merged[0, 0]["gt_semantic_seg"].unique().tolist() == [0, 1]
    tested = VOSDataset(**DIRS, data_root=tmp_path, test_mode=True)  # in testing everything but 0 is the object
    assert np.unique(tested.load_label(0, 0)).tolist() == [0, 1]


def test_a_mask_of_another_kind_than_the_others_is_told(root):
    dataset = VOSDataset(**DIRS, data_root=root, pipeline=LOAD)
    dataset[0, 0]
    Image.fromarray(np.full(SIZE, 128, np.uint8)).save(root / "mask/val/bear_00003.png")
    with pytest.raises(DataError, match=r"bear_00003.png: values \[128\]"):
        dataset[3, 0]
    Image.fromarray(np.arange(SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8)).save(root / "mask/val/bear_00003.png")
    with pytest.raises(DataError, match="256 different values"):
        VOSDataset(**DIRS, data_root=root, test_mode=True).load_label(0, 3)


# ---------------------------------------------------------------------- evaluation


def test_metrics(root):
    dataset = VOSDataset(**DIRS, data_root=root, test_mode=True)
    pooled, davis = dataset.metrics(ResultOptions(metrics=("VOS", "DAVIS16")))
    scores = []
    for video in dataset.videos:
        for t in range(video.num_frames):
            truth = dataset.load_label(video.index, t)
            pred = np.roll(truth, t, axis=1)
            scores.append(foreground_scores(pred, truth))
            for evaluator in (pooled, davis):
                evaluator.update(video.name, t, pred, truth)
        for evaluator in (pooled, davis):
            evaluator.end_video(video.name)
    j = np.array(scores)[:, 0]
    assert pooled.scores()["JM"] == pytest.approx(j.mean())
    assert pooled.scores()["JO"] == pytest.approx((j[1:-1] > 0.5).mean())
    assert davis.scores()["J-Mean"] == pytest.approx((j[1:3].mean() + j[5]) / 2)
    assert dataset.score_names() == ["JM", "JO", "FM", "FO"]
    with pytest.raises(ConfigError, match="mIoU"):
        dataset.metrics(ResultOptions(metrics=("mIoU",)))


def test_paintings_have_the_colours_and_the_opacity_that_are_asked_for(root, tmp_path):
    dataset = VOSDataset(**DIRS, data_root=root, test_mode=True)
    assert dataset.writers(ResultOptions(None)) == []
    masks, painting = dataset.writers(ResultOptions(None, output_dir=tmp_path / "out", opacity=0.4))
    assert (masks.folder, painting.folder, painting.opacity) == (tmp_path / "out-DAVIS-16", tmp_path / "out", 0.4)
    assert painting.table[:2].tolist() == [list(colour) for colour in dataset.PALETTE]
    own = [[1, 2, 3], [4, 5, 6]]
    _, painting = dataset.writers(ResultOptions(None, output_dir=tmp_path / "out", palette=own))
    assert painting.table[:2].tolist() == own


def test_videos_with_few_or_no_masks(root, caplog):
    (root / "mask/val/bear_00002.png").unlink()
    dataset = VOSDataset(**DIRS, data_root=root, test_mode=True)
    assert dataset.metrics(ResultOptions()) and "bear: 3 of 4" in caplog.text
    assert dataset.frame(0, 2).truth is None and dataset.is_labelled()
    shutil.rmtree(root / "mask")
    with pytest.raises(DataError, match="without masks"):
        dataset.metrics(ResultOptions())
    assert not dataset.is_labelled()


# ---------------------------------------------------------------------- what cannot be


def test_flow_that_is_missing(root):
    (root / "flow/val/bear_00003.jpg").unlink()
    dataset = VOSDataset(**DIRS, data_root=root, test_mode=True)
    with pytest.raises(DataError, match=r"(?s)1 of 4 frames without optical flow: .*bear_00003.jpg.*generate_flow"):
        list(dataset.frames(0))
    assert len(list(dataset.frames(1))) == 3
    with pytest.raises(DataError, match="1 of 7 frames"):
        VOSDataset(**DIRS, data_root=root, pipeline=LOAD).label_counts()


def test_flow_for_more_frames_than_there_are_is_told(root, caplog):
    shutil.copy(root / "flow/val/bear_00003.jpg", root / "flow/val/bear_00004.jpg")
    VOSDataset(**DIRS, data_root=root, pipeline=LOAD).label_counts()
    assert "8 flow pictures for 7 frames" in caplog.text


def test_flow_of_another_size(root):
    cv2.imwrite(str(root / "flow/val/bear_00001.jpg"), np.zeros((40, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"bear_00001.jpg: optical flow of 64x40 pixels for a frame of 64x48"):
        VOSDataset(**DIRS, data_root=root, pipeline=LOAD)[1, 0]
    with pytest.raises(DataError, match="64x40"):
        VOSDataset(**DIRS, data_root=root, test_mode=True).frame(0, 1)


def test_masks_that_are_missing_in_training(root):
    (root / "mask/val/bear_00001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 7 frames without mask: .*bear_00001.png"):
        VOSDataset(**DIRS, data_root=root, pipeline=LOAD).label_counts()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(img1_dir="frame/test"), "no such folder"),
        (dict(img1_dir="mask/val"), "no frames in it"),
        (dict(split="none.txt"), "none.txt"),
        (dict(mask_values="ids"), "mask_values"),
        (dict(img_suffix=".png"), "img_suffix"),
        (dict(seg_map_suffix="_gt.jpg"), "seg_map_suffix='_gt.jpg'"),
        (dict(reduce_zero_label=True), "reduce_zero_label"),
        (dict(img_dir="frame/val"), "img_dir"),
    ],
)
def test_keys_that_cannot_work(root, keys, message):
    with pytest.raises((ConfigError, DataError), match=message):
        build_dataset({"type": "VOSDataset", "data_root": str(root), **DIRS, **keys})


@pytest.mark.parametrize("test_mode", [False, True])
def test_masks_without_an_object(root, test_mode):
    for path in (root / "mask/val").iterdir():
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))
    dataset = VOSDataset(**DIRS, data_root=root, pipeline=None if test_mode else LOAD, test_mode=test_mode)
    with pytest.raises(DataError, match=r"no object in 7 of 7 masks, the first is .*bear_00000.png"):
        dataset.label_counts()


def test_log_says_nothing_about_good_data(root, caplog):
    with caplog.at_level(logging.INFO):
        VOSDataset(**DIRS, data_root=root, pipeline=LOAD).label_counts()
    assert not caplog.records
