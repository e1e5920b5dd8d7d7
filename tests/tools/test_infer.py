"""``tools/infer.py`` with a user's arguments."""

import functools

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.folder_lock import FolderLock
from tests.engine.tiny_vspw import SIZE, make_data, make_video, write_config


@pytest.fixture
def infer(call):
    """Calls ``python tools/infer.py ...``; returns what it wrote to the terminal."""

    return functools.partial(call, "infer.py")


@pytest.fixture
def config(tmp_path):
    make_data(tmp_path / "data", {"a": 12})
    return write_config(tmp_path / "cffm.py", tmp_path / "data")


def count_frames(path) -> tuple[int, tuple]:
    capture = cv2.VideoCapture(str(path))
    count, shape = 0, None
    while True:
        ok, frame = capture.read()
        if not ok:
            return count, shape
        count, shape = count + 1, frame.shape


def test_folder_then_video(tmp_path, config, infer):
    output = infer(tmp_path / "data/data/a/origin", config, "none", "--out", tmp_path / "out")
    assert "12 frames" in output
    folder = tmp_path / "out" / "origin"
    labels = sorted((folder / "labels").iterdir())
    assert [p.name for p in labels] == [f"{t:05d}.png" for t in range(12)]
    picture = Image.open(labels[5])
    assert picture.mode == "P" and np.asarray(picture).shape == SIZE and np.asarray(picture).max() < 3
    count, shape = count_frames(folder / "origin_overlay.mp4")
    assert count == 12 and shape == (SIZE[0] // 2 * 2, 2 * SIZE[1], 3)

    output = infer(folder / "origin_overlay.mp4", config, "none", "--out", tmp_path / "out", "--no-overlay")
    assert "12 frames" in output and [p.name for p in (tmp_path / "out/origin_overlay").iterdir()] == ["labels"]
    assert len(list((folder / "labels").iterdir())) == 12  # videos do not mix


def test_a_shorter_video_of_the_same_name_leaves_no_frames_of_the_longer_one(tmp_path, config, infer):
    for count in (12, 5):
        source = tmp_path / str(count) / "clip"
        source.mkdir(parents=True)
        for path in sorted((tmp_path / "data/data/a/origin").iterdir())[:count]:
            (source / path.name).write_bytes(path.read_bytes())
        infer(source, config, "none", "--out", tmp_path / "out", "--no-overlay")
        labels = sorted(path.name for path in (tmp_path / "out/clip/labels").iterdir())
        assert labels == [f"{t:05d}.png" for t in range(count)]


def test_two_runs_do_not_write_to_one_folder(tmp_path, config, infer):
    with FolderLock(tmp_path / "out" / "origin", "another run"):
        message = infer(tmp_path / "data/data/a/origin", config, "none", "--out", tmp_path / "out", status=2)
    assert "in use by another run" in message and not list((tmp_path / "out").rglob("*.png"))


def test_bad_input(tmp_path, config, infer):
    assert "does not exist" in infer("gone.mp4", config, "none", "--out", tmp_path / "o", status=2)
    (tmp_path / "text.mp4").write_text("no video")
    assert "opened by OpenCV" in infer(tmp_path / "text.mp4", config, "none", "--out", tmp_path / "o", status=2)
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in infer(tmp_path / "empty", config, "none", "--out", tmp_path / "o", status=2)
    make_video(tmp_path / "other", "b", 2, 0, size=(50, 60))
    mixed = tmp_path / "data/data/a/origin"
    (tmp_path / "other/data/b/origin/00001.jpg").rename(mixed / "00003.jpg")
    message = infer(mixed, config, "none", "--out", tmp_path / "o", status=2)
    assert "frame 3" in message and "00003" in message and "60x50" in message
    assert "--flow" in infer(mixed, config, "none", "--out", tmp_path / "p", "--flow", "dis", status=2)
    assert not (tmp_path / "p").exists()
