"""Trees of frames and masks at the size of the training: sizes, palettes, files that are no pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.errors import DataError
from mmseg.images import read_mask, read_palette
from mmseg.making.resize_trees import resize_length, resize_youtube
from tests.datasets.vos_folders import case_palette, write_png


def test_youtube_vos_keeps_ids_and_palettes(tmp_path):
    image, mask = np.full((30, 50, 3), 90, np.uint8), np.zeros((30, 50), np.uint8)
    mask[10:20, 10:30] = 7
    (tmp_path / "in/JPEGImages/a").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "in/JPEGImages/a/0.jpg")
    write_png(tmp_path / "in/Annotations/a/0.png", mask, case_palette())
    assert resize_youtube(tmp_path / "in", tmp_path / "out", side=48, processes=1) == 2
    with Image.open(tmp_path / "out/JPEGImages/a/0.jpg") as frame:
        assert frame.size == (80, 48) and frame.format == "JPEG"
    out = tmp_path / "out/Annotations/a/0.png"
    assert set(np.unique(read_mask(out))) == {0, 7} and read_mask(out).shape == (48, 80)
    assert np.array_equal(read_palette(out), case_palette())


def test_stills_are_averaged(tmp_path):
    stripes = np.zeros((40, 60, 3), np.uint8)
    stripes[:, ::2] = 200
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), stripes)
    (tmp_path / "in/notes.txt").write_text("no picture")
    assert resize_length(tmp_path / "in", tmp_path / "out", side=20, processes=1) == 1
    small = cv2.imread(str(tmp_path / "out/a.png"))
    assert small.shape == (20, 30, 3) and (small == 100).all()
    (tmp_path / "in/b.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"b\.jpg"):
        resize_length(tmp_path / "in", tmp_path / "out", side=20, processes=1)
    with pytest.raises(DataError, match="no pictures"):
        resize_length(tmp_path / "absent", tmp_path / "out")
    for target in ("in", "in/small", "../" + tmp_path.name + "/in"):
        with pytest.raises(DataError, match="a folder outside of it"):
            resize_length(tmp_path / "in", tmp_path / target, side=20)


def test_a_camera_held_upright_turns_neither_picture_nor_mask(tmp_path):
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(tmp_path / "in/a.jpg", exif=exif)
    write_png(tmp_path / "in/a.png", np.zeros((30, 50), np.uint8))
    assert resize_length(tmp_path / "in", tmp_path / "out", side=15, processes=2) == 2
    for name in ("a.jpg", "a.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (25, 15)


def test_a_folder_that_is_missing_is_told_before_anything_is_written(tmp_path):
    write_png(tmp_path / "in/JPEGImages/a/0.png", np.zeros((30, 50), np.uint8))
    with pytest.raises(DataError, match="Annotations: no pictures"):
        resize_youtube(tmp_path / "in", tmp_path / "out", side=48)
    assert not (tmp_path / "out").exists()
