"""What missing, damaged and misnamed files of the VSPW layout get."""

import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import VSPWDataset
from mmseg.writing.base import ResultOptions
from tests.datasets.vspw_folder import TEST, TRAIN, expect, frame_of, mask_of, write_vspw


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


def test_videos_without_masks_are_tested_and_neither_scored_nor_trained_on(tmp_path):
    root = write_vspw(tmp_path, train=dict(a=12), val=dict(c=5))
    for video in "ac":
        shutil.rmtree(root / "data" / video / "mask")
    dataset = VSPWDataset(root, "val", TEST, test_mode=True)
    assert [frame.truth for frame in dataset.frames(0)] == [None] * 5
    expect("evaluation of videos without masks", dataset.metrics, ResultOptions())
    expect("12 of 12 frames without mask", VSPWDataset, root, "train", TRAIN)


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


@pytest.mark.parametrize("clash", ["origin/00000001.png", "mask/00000001.PNG"])
def test_two_files_of_one_stem(root, clash):
    (root / "data" / "c" / clash).touch()
    expect("have the same stem", VSPWDataset, root, "val", test_mode=True)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc", "..", ".", "a/..", "/", "a\0b", "a\x1bb"])
def test_split_file_that_leaves_the_data_folder(root, name):
    (root / "val.txt").write_text(f"c\n\n  {name}  \n")
    message = expect(repr(name), VSPWDataset, root, "val", test_mode=True)
    assert f"{root / 'val.txt'}, line 3" in message


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


def test_a_folder_of_another_name_is_named(tmp_path):
    folder = write_vspw(tmp_path, train=dict(a=12)) / "data/a"
    (folder / "origin").rename(folder / "Origin")
    expect("has no origin, but Origin, mask", VSPWDataset, tmp_path, "train", TRAIN)
    (folder / "Origin").rename(folder / "origin")
    (folder / "mask").rename(folder / "masks")
    expect("has no mask, but masks, origin", VSPWDataset, tmp_path, "train", TRAIN)
    (folder / "origin").rename(folder / "frames")
    (folder / "origin").symlink_to("elsewhere")
    expect("origin does not exist\n", VSPWDataset, tmp_path, "train", TRAIN)


def test_masks_without_frame_are_told(root, caplog):
    frame_of(root).unlink()
    VSPWDataset(root, "val", TEST, test_mode=True)
    assert f"1 masks without frame, the first is {mask_of(root)}" in caplog.text
