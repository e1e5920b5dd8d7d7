"""``tools/infer.py`` with a user's arguments: one video."""

import functools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.folder_lock import FolderLock
from tests.engine.tiny_vspw import CLASSES, SIZE, make_data, make_video, write_checkpoint, write_config


@pytest.fixture
def infer(call):
    """Calls ``python tools/infer.py ... --device cpu``; returns what it wrote to the terminal."""
    return functools.partial(call, "infer.py", "--device", "cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Twelve frames in data/data/a/origin, a config and a checkpoint that carries it."""
    folder = tmp_path_factory.mktemp("infer")
    make_data(folder / "data", {"a": 12})
    write_checkpoint(folder / "model.pth", write_config(folder / "baseline.py", folder / "data", clip=False))
    return folder


@pytest.fixture(scope="module")
def frames(work):
    return work / "data/data/a/origin"


def count_frames(path) -> tuple[int, tuple]:
    capture = cv2.VideoCapture(str(path))
    count, shape = 0, None
    while True:
        ok, frame = capture.read()
        if not ok:
            return count, shape
        count, shape = count + 1, frame.shape


def entries(folder) -> list[str]:
    """All that stands in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_pictures_with_a_config_then_their_video_without(tmp_path, work, frames, infer):
    output = infer(frames, work / "baseline.py", "none", "--out", tmp_path)
    folder = tmp_path / "origin"
    assert "12 frames in" in output and str(folder) in output
    assert entries(tmp_path) == ["origin"] and entries(folder) == ["labels", "origin_overlay.mp4", "run.json"]
    labels = sorted((folder / "labels").iterdir())
    assert [p.name for p in labels] == [f"{t:05d}.png" for t in range(12)]
    picture = Image.open(labels[5])
    assert picture.mode == "P" and np.asarray(picture).shape == SIZE and np.asarray(picture).max() < 3
    count, shape = count_frames(folder / "origin_overlay.mp4")
    assert count == 12 and abs(shape[0] - SIZE[0]) <= 1 and shape[1:] == (SIZE[1], 3)

    output = infer(folder / "origin_overlay.mp4", work / "model.pth", "--out", tmp_path, "--no-overlay")
    assert "12 frames" in output and entries(tmp_path / "origin_overlay") == ["labels", "run.json"]
    assert len(entries(folder / "labels")) == 12  # videos do not mix


def test_everything_that_can_be_saved(tmp_path, work, frames, infer):
    infer(
        *(frames, work / "model.pth", "--out", tmp_path, "--save", "labels,overlay", "video", "probs", "json"),
        *("--legend", "--side-by-side", "--opacity", "0.3", "--palette", "davis", "--every", 3, "--max-frames", 3),
    )
    folder = tmp_path / "origin"
    names = ["00000", "00003", "00006"]
    assert entries(folder) == ["labels", "origin.json", "origin_overlay.mp4", "overlay", "probs", "run.json"]
    for kind, suffix in (("labels", "png"), ("overlay", "jpg"), ("probs", "npz")):
        assert entries(folder / kind) == [f"{name}.{suffix}" for name in names]
    labels = Image.open(folder / "labels/00003.png")
    assert labels.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    labels = np.asarray(labels)
    with np.load(folder / "probs/00003.npz") as file:
        probabilities, rows = file["probabilities"], file["rows"]
    assert probabilities.dtype == np.float16 and probabilities.shape == (len(rows), *SIZE)
    assert np.abs(probabilities.astype(np.float32).sum(axis=0) - 1).max() < 0.03
    best = np.sort(probabilities, axis=0)
    clear = best[-1] - best[-2] > 0.01 if len(rows) > 1 else np.ones(SIZE, bool)
    assert (rows[probabilities.argmax(axis=0)] == labels)[clear].all() and clear.mean() > 0.5
    numbers = json.loads((folder / "origin.json").read_text())
    assert numbers["classes"] == list(CLASSES) and (numbers["width"], numbers["height"]) == SIZE[::-1]
    assert [frame["name"] for frame in numbers["frames"]] == names and numbers["fps"] is None
    for seen in numbers["frames"][1]["labels"]:
        x, y, width, height = seen["box"]
        where = np.zeros(SIZE, bool)
        where[y : y + height, x : x + width] = True
        assert seen["name"] == CLASSES[seen["label"]] and seen["area"] == (labels == seen["label"]).sum()
        assert not (labels == seen["label"])[~where].any()
    assert sum(seen["area"] for seen in numbers["frames"][1]["labels"]) == labels.size
    count, shape = count_frames(folder / "origin_overlay.mp4")
    assert count == 3 and shape[0] > SIZE[0] and shape[1] >= 2 * SIZE[1]  # a strip below two pictures


def test_another_run_replaces_what_the_first_has_made_and_nothing_else(tmp_path, work, frames, infer):
    for count, save in ((12, "labels,json"), (5, "labels")):
        source = tmp_path / str(count) / "clip"
        source.mkdir(parents=True)
        for path in sorted(frames.iterdir())[:count]:
            (source / path.name).write_bytes(path.read_bytes())
        infer(source, work / "model.pth", "--out", tmp_path / "out", "--save", save)
        (tmp_path / "out/clip/notes.txt").touch()
    assert entries(tmp_path / "out/clip") == ["labels", "notes.txt", "run.json"]
    assert entries(tmp_path / "out/clip/labels") == [f"{t:05d}.png" for t in range(5)]


def test_two_runs_do_not_make_one_video(tmp_path, work, frames, infer):
    with FolderLock(tmp_path / ".origin.unfinished", "another run"):
        message = infer(frames, work / "model.pth", "--out", tmp_path, status=2)
    assert "in use by another run" in message and not list(tmp_path.rglob("*.png"))


def test_what_a_killed_run_has_left_is_removed(tmp_path, work, frames, infer):
    left = tmp_path / ".origin.unfinished"
    (left / "labels").mkdir(parents=True)
    (left / "labels/00099.png").touch()
    (left / "origin_overlay.mp4").touch()
    infer(frames, work / "model.pth", "--out", tmp_path, "--no-overlay", "--max-frames", 1)
    assert entries(tmp_path) == ["origin"] and entries(tmp_path / "origin/labels") == ["00000.png"]


def test_bad_input(tmp_path, work, frames, infer):
    def refused(*arguments) -> str:
        message = infer(*arguments, "--out", tmp_path / "out", status=2)
        assert not (tmp_path / "out").exists()
        return message

    model = work / "model.pth"
    assert "does not exist" in refused("gone.mp4", model)
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in refused(tmp_path / "text.mp4", model)
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refused(tmp_path / "empty", model)
    make_video(tmp_path / "other", "b", 4, 0)
    make_video(tmp_path / "small", "b", 1, 0, size=(50, 60))
    mixed = tmp_path / "other/data/b/origin"
    (tmp_path / "small/data/b/origin/00000.jpg").rename(mixed / "00003.jpg")
    message = refused(mixed, model)
    assert "frame 3" in message and "00003" in message and "60x50" in message
    (tmp_path / "file").touch()
    message = infer(frames, model, "--out", tmp_path / "file", status=2)
    assert "a part of the path is a file" in message
    for arguments in ((), (frames,), ("none",), (model,), ("--input", frames), (frames, model, "--input", frames)):
        assert "usage" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mask M.png", "--mask has no effect here"),
        ("--flow dis", "--flow has no effect here"),
        ("--save labels --opacity 0.5", "--opacity has no effect here"),
        ("--save json --legend", "--legend has no effect here"),
        ("--save json --side-by-side", "--side-by-side has no effect here"),
        ("--save json --palette davis", "--palette has no effect here"),
        ("--save label", "did you mean 'labels'?"),
        ("--save features", "a model that shows what its stages do"),
        ("--save labels --no-overlay", "--no-overlay with --save"),
        ("--palette gone.png", "--palette gone.png"),
        ("--palette M.png", "no colours"),
        ("--masks gone", "no such folder"),
        ("--num-shards 2", "--num-shards without --shard"),
        ("--num-shards 2 --shard 2", "a number from 0 to 1"),
    ],
)
def test_flags_without_effect_are_refused(tmp_path, work, frames, infer, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.ones(SIZE, np.uint8)).save("M.png")
    assert message in infer(frames, work / "model.pth", "--out", "out", *arguments.split(), status=2)
    assert entries(tmp_path) == ["M.png"]
