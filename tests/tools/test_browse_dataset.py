"""``tools/browse_dataset.py``: what a training sees, of every kind of data set, with the labels where they belong."""

import re
import shutil

import cv2
import numpy as np
import pytest

from mmseg.apis.browsing import browse
from mmseg.config import load_config
from mmseg.datasets import build_dataset, build_train_loader
from mmseg.making.toy import generate_toy_dataset
from mmseg.making.toy_given import generate_toy_given
from mmseg.making.toy_objects import generate_toy_objects
from mmseg.visualization import palette_table
from mmseg.visualization.clip_sheet import painted
from tests.tools.processes import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The toy data sets that the configs name."""
    root = tmp_path_factory.mktemp("browse")
    generate_toy_dataset(root / "data/toy", 2, 1, 1, 12, (48, 80))
    generate_toy_objects(root / "data/toy_flow", 1, 1, 3, (48, 80), flow="farneback")
    generate_toy_given(root / "data/toy_davis", 2, 1, 2, 6, (48, 80))
    return root


@pytest.mark.parametrize(
    ("config", "columns", "rows"),
    [("cffm.b0", 4, 2), ("themask_video.b0", 2, 2), ("hfan.b0", 3, 1), ("gsfm_stage0", 3, 2), ("gsfm_stage3", 3, 2)],
)
def test_every_kind_of_training_data(data, tmp_path, monkeypatch, call, config, columns, rows):
    monkeypatch.chdir(data)
    path = str(ROOT / f"local_configs/toy/{config}.py")
    output = call("browse_dataset.py", path, "--number", 2, "--width", 90, "--out", tmp_path / "a.png")
    assert re.search(r"sample 0: .*\nsample 1: ", output)
    sheet = cv2.imread(str(tmp_path / "a.png"))
    assert sheet.shape[1] == columns * 96 + 6
    assert sheet.shape[0] > 2 * (rows * 96)


def test_they_are_the_samples_of_the_training(data, monkeypatch):
    """The same frames, colours and labels, normalisation undone."""
    monkeypatch.chdir(data)
    cfg = load_config(ROOT / "local_configs/toy/cffm.b0.py")
    _, (first, second) = browse(cfg, count=2, seed=7, start=3)
    with build_train_loader(build_dataset(cfg.data.train), 1, 0, seed=7, start_iter=3) as batches:
        for clip, batch in zip((first, second), batches):
            [meta] = batch["img_metas"]
            assert clip.title.endswith(f"{meta['video']}, frames {', '.join(map(str, meta['clip']))}")
            mean, std = np.asarray(meta["img_norm_cfg"]["mean"]), np.asarray(meta["img_norm_cfg"]["std"])
            for t in range(4):
                rgb = clip.frames[t][..., ::-1]
                back = (rgb - mean) / std
                assert np.abs(back - batch["img"][0, t].permute(1, 2, 0).numpy()).max() < 0.01
                assert (clip.labels[t] == batch["gt_semantic_seg"][0, t, 0].numpy()).all()


def test_flow_and_truth_of_a_test_set_as_a_page(data, tmp_path, monkeypatch, call):
    monkeypatch.chdir(data)
    path = str(ROOT / "local_configs/toy/hfan.b0.py")
    output = call("browse_dataset.py", path, "--section", "test", "--out", tmp_path / "a.html")
    assert "3 frames: 00000, 00001, 00002" in output
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "http" not in page
    _, [clip] = browse(load_config(path), "test")
    assert len(clip.flows) == len(clip.frames) == 3 and set(np.unique(clip.labels[0])) == {0, 1}


def test_mistakes(data, monkeypatch, call):
    monkeypatch.chdir(data)
    config = str(ROOT / "local_configs/toy/cffm.b0.py")
    for arguments, message in [
        (["--out", "a.pdf"], "does not end in .png or .html"),
        (["--videos", "train_0"], "did you mean 'train_00"),
        (["--options", "data_root=gone"], "gone"),
        (["--options", "data.val=None", "--section", "val"], "data.val is missing"),
    ]:
        assert message in call("browse_dataset.py", config, *arguments, status=2)


def test_what_is_painted():
    """Classes in their colours; ignored pixels in stripes; a class whose colour is black shows the frame."""
    frame, labels = np.full((16, 32, 3), 100, np.uint8), np.zeros((16, 32), np.uint8)
    labels[:, 8:16], labels[:, 16:] = 1, 255
    picture = painted(frame, labels, palette_table([[0, 0, 0], [200, 0, 0]], 2), opacity=0.5)
    assert (picture[:, :8] == 100).all()
    assert (picture[:, 9:15] == (50, 50, 150)).all()  # BGR, between the lines around it
    assert set(np.unique(picture[:, 16:])) == {25, 100}


def test_frames_that_are_scored_are_those_with_masks(data, tmp_path):
    shutil.copytree(data / "data/toy", tmp_path / "toy")
    cfg = load_config(ROOT / "local_configs/toy/cffm.b0.py", {"data_root": str(tmp_path / "toy"),
                                                              "data.every.unlabelled": "keep"})  # fmt: skip
    [video] = (tmp_path / "toy/val.txt").read_text().split()
    masks = sorted((tmp_path / "toy/data" / video / "mask").iterdir())
    for number, path in enumerate(masks):
        if number not in (1, 5, 6):
            path.unlink()
    _, [clip] = browse(cfg, "val", 1)
    assert clip.title.endswith(", ".join(masks[number].stem for number in (1, 5, 6)))
    assert [labels is not None for labels in clip.labels] == [True] * 3
