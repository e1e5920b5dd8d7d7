"""``tools/generate_flow.py``, ``tools/prepare_davis.py`` and the toy data with flow: files, names, pairs, going on."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg.datasets import build_dataset
from mmseg.errors import ConfigError, DataError
from mmseg.making.davis_layout import prepare_davis
from mmseg.making.flow import flow_network
from mmseg.making.flow_colours import flow_picture
from mmseg.making.flow_files import generate_flow
from mmseg.making.toy_objects import generate_toy_objects
from tests.making.test_flow import Told, moving

SIZE = (48, 72)


def write_frames(folder, videos, flat=False, start=0):
    for name, number in videos.items():
        for t, image in enumerate(moving(number, SIZE), start):
            path = folder / (f"{name}_{t:05d}.jpg" if flat else f"{name}/{t:05d}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_frame_gets_a_picture_of_its_name(flat, batch_size, tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "flow"
    write_frames(frames, {"a_b": 4, "c": 3}, flat)
    network = flow_network("dis")
    assert generate_flow(frames, out, network, batch_size, progress=False) == 7
    assert names(out) == names(frames)
    video = [cv2.imread(str(path)) for path in sorted(frames.rglob("*.jpg")) if "a_b" in str(path)]
    for t, other in ((0, 1), (2, 3), (3, 2)):
        path = out / (f"a_b_{t:05d}.jpg" if flat else f"a_b/{t:05d}.jpg")
        picture = flow_picture(network([video[t]], [video[other]])[0])
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert path.read_bytes() == encoded
        with Image.open(path) as image:
            assert image.size == SIZE[::-1] and image.layer[0][1:3] == (2, 2) and image.layer[1][1:3] == (1, 1)


def test_frames_of_any_format_get_flow(tmp_path):
    for suffix in ("bmp", "webp", "tif"):
        (tmp_path / "frames" / suffix).mkdir(parents=True)
        for t, image in enumerate(moving(2, SIZE)):
            cv2.imwrite(str(tmp_path / "frames" / suffix / f"{t}.{suffix}"), image)
    assert generate_flow(tmp_path / "frames", tmp_path / "flow", flow_network("dis"), progress=False) == 6
    assert names(tmp_path / "flow") == [f"{suffix}/{t}.jpg" for suffix in ("bmp", "tif", "webp") for t in (0, 1)]


def test_splits_of_flat_names_are_no_videos(tmp_path):
    """Frames of two videos in one folder: the last of a video never gets the flow to the first of the next."""
    write_frames(tmp_path / "frame" / "val", {"a": 3, "b": 2}, flat=True)
    write_frames(tmp_path / "frame" / "train", {"a": 2}, flat=True)
    generate_flow(tmp_path / "frame", tmp_path / "flow", flow_network("dis"), progress=False)
    for split in ("val", "train"):
        generate_flow(tmp_path / "frame" / split, tmp_path / split, flow_network("dis"), progress=False)
        assert names(tmp_path / split) == names(tmp_path / "flow" / split)
        for name in names(tmp_path / split):
            assert (tmp_path / split / name).read_bytes() == (tmp_path / "flow" / split / name).read_bytes(), name


def test_a_run_that_broke_off_goes_on(tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "flow"
    write_frames(frames, {"a": 5})
    whole = Told()
    generate_flow(frames, out, whole, progress=False)
    times = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    (out / "a" / "00002.jpg").unlink()
    (out / "a" / "00004.jpg").unlink()
    again = Told()
    assert generate_flow(frames, out, again, progress=False) == 2
    assert [again.pairs[0], again.pairs[1]] == [whole.pairs[2], whole.pairs[4]]
    for name in ("00000.jpg", "00001.jpg", "00003.jpg"):
        assert (out / "a" / name).stat().st_mtime_ns == times[name]


def test_two_ways_of_making_do_not_mix(tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "flow"
    write_frames(frames, {"a": 3})
    generate_flow(frames, out, flow_network("dis"), progress=False)
    with pytest.raises(ConfigError, match=r"made with .*'dis'"):
        generate_flow(frames, out, flow_network("farneback"), progress=False)
    (out / "flow.json").unlink()
    with pytest.raises(ConfigError, match="nothing tells how they were made"):
        generate_flow(frames, out, flow_network("dis"), progress=False)


def test_bad_frames(tmp_path, caplog):
    with pytest.raises(DataError, match="no such folder"):
        generate_flow(tmp_path / "none", tmp_path / "flow", Told(), progress=False)
    write_frames(tmp_path / "frames", {"a": 3, "one": 1})
    cv2.imwrite(str(tmp_path / "frames/a/00002.jpg"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DataError, match="00002.jpg: frames of 2 sizes".replace(".", r"\.")):
        generate_flow(tmp_path / "frames", tmp_path / "flow", flow_network("dis"), 2, progress=False)
    (tmp_path / "frames/a/00002.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="00002"):
        generate_flow(tmp_path / "frames", tmp_path / "flow", flow_network("dis"), progress=False)
    (tmp_path / "frames/a/00002.jpg").unlink()
    generate_flow(tmp_path / "frames", tmp_path / "flow", flow_network("dis"), progress=False)
    assert (cv2.imread(str(tmp_path / "flow/one/00000.jpg")) == 255).all()
    assert "video one has one frame" in caplog.text


# -- downloads


def write_masks(folder, videos, value):
    for name, number in videos.items():
        (folder / name).mkdir(parents=True)
        for t in range(number):
            mask = np.zeros(SIZE, np.uint8)
            mask[10:20, 20 + t : 40 + t] = value
            mask[30:35, 20:30] = min(value, 2)
            cv2.imwrite(str(folder / name / f"{t:05d}.png"), mask)


def davis(root):
    videos = {"bear": 4, "dog-agility": 3, "camel": 3}
    write_frames(root / "JPEGImages" / "480p", videos)
    write_masks(root / "Annotations" / "480p", videos, 255)
    lists = root / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    for split, chosen in (("train", ["bear", "dog-agility"]), ("val", ["camel"])):
        lines = [
            f"/JPEGImages/480p/{v}/{t:05d}.jpg /Annotations/480p/{v}/{t:05d}.png" for v in chosen for t in range(3)
        ]
        (lists / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_davis_becomes_davis2seg(tmp_path):
    source, out = davis(tmp_path / "DAVIS"), tmp_path / "DAVIS2SEG"
    counts = prepare_davis(source, out, flow_network("dis"), progress=False)
    assert counts == {"train": 7, "val": 3}
    expected = [f"bear_{t:05d}.jpg" for t in range(4)] + [f"dog-agility_{t:05d}.jpg" for t in range(3)]
    assert names(out / "frame" / "train") == names(out / "flow" / "train") == expected
    assert (out / "frame/train/bear_00002.jpg").read_bytes() == (source / "JPEGImages/480p/bear/00002.jpg").read_bytes()
    mask = np.asarray(Image.open(out / "mask/train/bear_00002.png"))
    assert np.unique(mask).tolist() == [0, 1] and mask[12, 30] == mask[32, 25] == 1
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    prepare_davis(source, out, flow_network("dis"), progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    data = dict(type="VOSDataset", data_root=str(out), img1_dir="frame/val", img2_dir="flow/val", ann_dir="mask/val")
    dataset = build_dataset(data, test_mode=True)
    frames = list(dataset.frames(0))
    assert [video.name for video in dataset.videos] == ["camel"] and len(frames) == 3
    assert all(frame.flow.shape == (*SIZE, 3) and frame.truth.max() == 1 for frame in frames)


def test_youtube_vos_becomes_youtube2seg(tmp_path):
    source = tmp_path / "YouTube-VOS"
    write_frames(source / "train" / "JPEGImages", {"0a": 3})
    write_masks(source / "train" / "Annotations", {"0a": 3}, 3)
    counts = prepare_davis(source, tmp_path / "out", None, progress=False)
    assert counts == {"train": 3} and not (tmp_path / "out" / "flow").exists()
    assert np.unique(np.asarray(Image.open(tmp_path / "out/mask/train/0a_00001.png"))).tolist() == [0, 1]


def test_incomplete_downloads(tmp_path):
    with pytest.raises(DataError, match="no JPEGImages and Annotations"):
        prepare_davis(tmp_path, tmp_path / "out", None, progress=False)
    source = davis(tmp_path / "DAVIS")
    (source / "Annotations/480p/bear/00001.png").unlink()
    with pytest.raises(DataError, match="1 frames without mask: bear/00001"):
        prepare_davis(source, tmp_path / "out", None, progress=False)
    with pytest.raises(DataError, match="1 frames without mask"):
        prepare_davis(source, tmp_path / "out", None, ["train"], progress=False)
    assert prepare_davis(source, tmp_path / "out", None, ["val"], progress=False) == {"val": 3}
    (source / "ImageSets/480p/val.txt").unlink()
    with pytest.raises(DataError, match="no list of the videos of val"):
        prepare_davis(source, tmp_path / "out", None, ["val"], progress=False)


# -- toy data


def test_toy_objects_with_flow_and_masks(tmp_path):
    root = generate_toy_objects(tmp_path / "toy", videos=2, val_videos=1, frames=5)
    for split, number in (("train", 2), ("val", 1)):
        expected = [f"toy{v:03d}_{t:05d}" for v in range(number) for t in range(5)]
        for kind, suffix in (("frame", ".jpg"), ("flow", ".jpg"), ("mask", ".png")):
            assert sorted(path.name for path in (root / kind / split).iterdir()) == [n + suffix for n in expected]
    masks = [np.asarray(Image.open(path)) for path in (root / "mask").rglob("*.png")]
    shares = [mask.mean() for mask in masks]
    assert {int(v) for mask in masks for v in np.unique(mask)} == {0, 1} and 0.02 < np.mean(shares) < 0.6
    flows = [cv2.imread(str(path)) for path in (root / "flow").rglob("*.jpg")]
    assert all(flow.shape == (96, 160, 3) and flow.std() > 5 for flow in flows)
    again = generate_toy_objects(tmp_path / "again", videos=2, val_videos=1, frames=5)
    for path in root.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes()
    recipe = json.loads((root / "recipe.json").read_text())
    assert generate_toy_objects(root, videos=2, val_videos=1, frames=5) == root and recipe["flow"] == "dis"
    with pytest.raises(DataError, match="holds a data set already"):
        generate_toy_objects(root, videos=3, val_videos=1, frames=5)
    with pytest.raises(ConfigError, match="frames=1"):
        generate_toy_objects(tmp_path / "short", frames=1)


def test_the_three_commands(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / "DAVIS")
    output = call("prepare_davis.py", "DAVIS", "SEG", "--no-flow", "--flow", "dis", status=2)
    assert "--flow has no effect with --no-flow" in output
    output = call("prepare_davis.py", "DAVIS", "SEG", "--flow", "farneback")
    assert "SEG: 7 frames of train, 3 frames of val" in output
    command = ["generate_flow.py", "--frames", "SEG/frame/val", "--out", "flow", "--flow", "dis"]
    assert "flow: 3 pictures of optical flow made" in call(*command)
    assert "flow: 0 pictures of optical flow made" in call(*command)
    output = call(
        "make_toy_dataset.py", "toy", "--layout", "davis2seg", "--videos", 1, "--val-videos", 1, "--frames", 3
    )
    assert "toy: 1 + 1 videos (train, val) with flow and masks" in output
