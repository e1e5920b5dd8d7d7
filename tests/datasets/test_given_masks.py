"""DAVIS and YouTube-VOS with given masks: official layouts, official network inputs, and folders that are not right."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg.config import load_config
from mmseg.datasets import build_dataset
from mmseg.errors import ConfigError, DataError
from mmseg.images import read_mask, read_palette
from mmseg.structures import Result
from mmseg.writing.base import ResultOptions
from tests.datasets.vos_folders import case_palette, label_map, write_davis, write_davis_2016, write_png, write_youtube
from tests.golden_cases import GOLDEN
from tests.models.gsfm_cases import GSFMCase

CONFIGS = GOLDEN.parents[1] / "local_configs" / "gsfm"
VIDEO = {"name": "one", "frames": 4, "size": [30, 40], "ids": [1, 2], "cell": 10}


def config(name: str, **data) -> Config:
    return load_config(CONFIGS / name, {f"data.test.{key}": value for key, value in data.items()})


def davis(tmp_path, **data):
    base = write_davis(tmp_path, [VIDEO], "trainval", "val.txt")
    cfg = config("davis2017_val.py", data_root=str(base / "trainval"), **data)
    return build_dataset(cfg.data.test, where="data.test", test_mode=True)


def test_youtube_vos_has_the_official_network_inputs(tmp_path):
    case = GSFMCase("yv_dataset")
    params = case["params"]
    base = write_youtube(tmp_path, params["videos"], params["split"])
    cfg = config("youtube2019_val.py", data_root=str(base / "valid"))
    cfg.data.test.pipeline[1]["size"] = params["res"]
    dataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
    for video in dataset.videos:
        ids = next(v["ids"] for v in params["videos"] if v["name"] == video.name)
        frames = list(dataset.frames(video.index))
        views = [dataset.pipeline.views(frame)[0] for frame in frames]
        given = {view.number: view.inputs["given"] for view in views if "given" in view.inputs}
        case.check(f"{video.name}/rgb", torch.stack([view.inputs["img"] for view in views]))
        masks = torch.zeros(len(ids), len(views), 1, *views[0].size, dtype=torch.uint8)
        for number, labels in given.items():
            for row, label in enumerate(ids):
                masks[row, number, 0] = labels == label
        case.check(f"{video.name}/gt", masks)
        case.check(f"{video.name}/size", torch.tensor(frames[0].size))
        shown = [(view.number, label) for view in views for label in view.inputs.get("objects", ())]
        expected = case.expected(f"{video.name}/gt_obj").tolist()
        table = dict(case.expected(f"{video.name}/label_convert").tolist())
        named = {tuple(row) for row in expected}
        assert {(frame, label) for frame, label in shown} in (named, {(f, table.get(k, k)) for f, k in named})


def test_davis_gives_the_first_mask(tmp_path):
    dataset = davis(tmp_path)
    frames = list(dataset.frames(0))
    assert [frame.given is not None for frame in frames] == [True, False, False, False]
    assert np.array_equal(frames[0].given, label_map(VIDEO))
    assert all(frame.wanted and frame.truth is None for frame in frames)
    assert [frame.path for frame in frames] == list(dataset.videos[0].frames)
    assert all(np.array_equal(frame.reload(), frame.image) for frame in frames)
    assert np.array_equal(dataset.palette, case_palette())
    with pytest.raises(DataError, match="without a mask for every frame"):
        dataset.metrics(ResultOptions())
    assert dataset.metrics(ResultOptions(metrics=())) == []


def test_davis_2016_is_one_object(tmp_path):
    base = write_davis_2016(tmp_path, [VIDEO])
    cfg = config("davis2016_val.py", data_root=str(base))
    dataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
    frames = list(dataset.frames(0))
    assert set(np.unique(frames[0].given)) == {0, 1} and frames[3].truth is not None and frames[3].given is None
    assert [type(e).__name__ for e in dataset.metrics(ResultOptions())] == ["DAVIS16Evaluator"]
    assert np.array_equal(dataset.palette[1], [128, 0, 0]) and np.array_equal(dataset.palette[22], [22, 22, 22])


def test_other_layouts(tmp_path):
    """MOSE: no folder of a resolution, no list of videos."""
    base = write_davis(tmp_path, [VIDEO], "trainval", "val.txt") / "trainval"
    mose = tmp_path / "MOSE"
    mose.mkdir()
    (base / "JPEGImages/480p").rename(mose / "JPEGImages")
    (base / "Annotations/480p").rename(mose / "Annotations")
    cfg = config("davis2017_val.py", data_root=str(mose), split=None, resolution="", palette_file=None)
    dataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
    assert [video.name for video in dataset.videos] == ["one"]


def test_masks_of_another_size(tmp_path, caplog):
    dataset = davis(tmp_path)
    path = dataset.videos[0].masks[0]
    write_png(tmp_path / "mask.png", label_map({**VIDEO, "size": [30, 41]}), case_palette())
    (tmp_path / "mask.png").rename(path)
    with caplog.at_level(logging.WARNING):
        frame = dataset.frame(0, 0)
        dataset.frame(0, 0)
    assert frame.given.shape == (30, 40) and caplog.text.count("resized") == 1
    write_png(tmp_path / "mask.png", label_map({**VIDEO, "size": [30, 42]}), case_palette())
    (tmp_path / "mask.png").rename(path)
    with pytest.raises(DataError, match="42x30 pixels for a frame of 40x30"):
        dataset.frame(0, 0)
    write_png(tmp_path / "mask.png", np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "mask.png").rename(path)
    with pytest.raises(DataError, match="mode RGB"):
        dataset.frame(0, 0)


def test_folders_that_are_not_right(tmp_path, caplog):
    base = write_davis(tmp_path, [VIDEO], "trainval", "val.txt") / "trainval"
    frames, masks = base / "JPEGImages/480p/one", base / "Annotations/480p/one"

    def build():
        return build_dataset(config("davis2017_val.py", data_root=str(base)).data.test, test_mode=True)

    (frames / "00002.jpg").rename(tmp_path / "away.jpg")
    with caplog.at_level(logging.WARNING):
        assert build().videos[0].num_frames == 3
    assert "1 frames may be missing, the first before frame 3" in caplog.text
    (masks / "00000.png").rename(masks / "00002.png")
    with pytest.raises(DataError, match=r"1 masks without a frame.*00002\.png"):
        build()
    (masks / "00002.png").rename(masks / "00001.png")
    with pytest.raises(DataError, match=r"no mask for its first frame .*00000\.jpg"):
        build()
    (masks / "00001.png").unlink()
    with pytest.raises(DataError, match="no pictures in"):
        build()
    (base / "ImageSets/2017/val.txt").write_text("two\n")
    with pytest.raises(DataError, match="video 'two': no such folder"):
        build()


def test_youtube_vos_that_is_not_right(tmp_path, caplog):
    video = {**VIDEO, "first": {"0": [1], "2": [2]}, "report": [0, 2, 3], "frame_step": 5}
    base = write_youtube(tmp_path, [video], "valid") / "valid"

    def build(**data):
        return build_dataset(config("youtube2019_val.py", data_root=str(base), **data).data.test, test_mode=True)

    dataset = build()
    frames = list(dataset.frames(0))
    assert [frame.wanted for frame in frames] == [True, False, True, True]
    assert [frame.given is not None for frame in frames] == [True, False, True, False]
    assert all(frame.wanted for frame in build(all_frames=True).frames(0))
    assert dataset.metrics(ResultOptions()) == []
    meta = json.loads((base / "meta.json").read_text())
    assert not caplog.text
    meta["videos"]["two"] = meta["videos"]["one"]
    (base / "meta.json").write_text(json.dumps(meta))
    build()
    assert "1 videos of meta.json are not there, the first is 'two'" in caplog.text
    del meta["videos"]["two"]
    idle = {"videos": {"one": {"objects": {"1": {"frames": []}}}}}
    (base / "meta.json").write_text(json.dumps(idle))
    build()
    assert "no frame of 1 videos, the first is 'one'" in caplog.text
    meta["videos"]["one"]["objects"]["1"]["frames"].append("00099")
    (base / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="no frame 00099"):
        build()
    (base / "meta.json").write_text(json.dumps({"videos": {}}))
    with pytest.raises(DataError, match=r"not in meta\.json"):
        build()
    (base / "meta.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="no list of videos"):
        build()
    build(all_frames=True)


def test_given_masks_without_an_object(tmp_path):
    dataset = davis(tmp_path)
    assert len(list(dataset.frames(0))) == 4
    write_png(Path(dataset.videos[0].masks[0]), np.zeros(VIDEO["size"], np.uint8))
    with pytest.raises(
        DataError, match=r"video 'one': no object in any of the 1 masks that are given, the last is .*00000\.png"
    ):
        list(dataset.frames(0))


def test_writers_make_a_zip_for_the_server(tmp_path):
    video = {**VIDEO, "first": {"0": [1]}, "report": [0, 2], "frame_step": 5}
    base = write_youtube(tmp_path, [video], "valid") / "valid"
    cfg = config("youtube2019_val.py", data_root=str(base))
    dataset = build_dataset(cfg.data.test, test_mode=True)
    (writer,) = dataset.writers(ResultOptions(out=tmp_path / "out", format_only=True, metrics=()))
    writer.start(dataset.videos, [0])
    writer.begin_video(dataset.videos[0])
    for frame in dataset.frames(0):
        if frame.wanted:
            writer.add(Result(dataset.videos[0], frame, label_map(video), (0, 1, 2)))
    writer.end_video()
    writer.finish()
    with zipfile.ZipFile(tmp_path / "out" / "result_submission.zip") as archive:
        assert archive.namelist() == ["Annotations/one/00000.png", "Annotations/one/00010.png"]
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "out/result_submission" / name).read_bytes()
    assert np.array_equal(read_mask(tmp_path / "out/result_submission" / name), label_map(video))
    assert np.array_equal(read_palette(tmp_path / "out/result_submission" / name), case_palette())


def test_configs_say_what_is_published():
    assert config("davis2017_val.py").model.test_cfg == dict(mem_every=3, top_k=50, include_last=False)
    assert config("davis2016_val.py").model.test_cfg.top_k == 20
    assert config("davis2017_testdev.py").data.test.split == "ImageSets/2017/test-dev.txt"
    assert config("youtube2018_val.py").data.test.data_root == "data/YouTube2018/valid"
    with pytest.raises(ConfigError):
        config("davis2017_val.py", resolutoin="480p").data.test  # noqa: B018
        build_dataset(config("davis2017_val.py", resolutoin="480p").data.test, test_mode=True)
