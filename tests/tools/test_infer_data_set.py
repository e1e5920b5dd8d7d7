"""``tools/infer.py --config``: HFAN's published command against the official masks; official configs to the end."""

from __future__ import annotations

import json
import pathlib
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.apis.testing import TestOptions
from mmseg.apis.testing import test_model as run_test
from mmseg.apis.training import train_segmentor
from mmseg.config import load_config
from mmseg.models import build_segmentor
from mmseg.writing.label_pickle import read_label_pickle
from tests.datasets.vos_folder import SIZE, vos_config, write_vos
from tests.engine.tiny_vspw import make_data, write_config
from tests.golden_cases import Case, fill

ROOT = pathlib.Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def infer(monkeypatch, capfd):
    """Calls ``python tools/infer.py ...``; returns what it wrote to the terminal."""

    def run(*arguments, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / "infer.py"), run_name="__main__")
        out = capfd.readouterr()
        assert ended.value.code == status, out.out + out.err
        return out.out + out.err

    return run


def write_videos(case: Case, root: pathlib.Path) -> None:
    """The toy videos of a case, as its ``how`` says."""
    for video, n, h, w in case["videos"]:
        base = fill.blocks(f"{case.name}/{video}/picture", (3, h + 2 * n, w + 4 * n), 200, 10)
        grain = fill.integers(f"{case.name}/{video}/grain", (n, h, w, 3), 56)
        flow = fill.blocks(f"{case.name}/{video}/flow", (n, 3, h, w), 256, 14)
        for t in range(n):
            frame = base[:, 2 * t : 2 * t + h, 4 * t : 4 * t + w].permute(1, 2, 0) + grain[t]
            for kind, picture in (("frame", frame), ("flow", flow[t].permute(1, 2, 0))):
                path = root / kind / "val" / f"{video}_{t:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", picture.numpy().astype(np.uint8))[1].tobytes())


def write_checkpoint(case: Case, path: pathlib.Path) -> None:
    method = case.data.get("select_method", "hfan")
    cfg = load_config(ROOT / case["config_file"], {"model.decode_head.select_method": method})
    model = build_segmentor({**cfg.model, "pretrained": None})
    fill.fill(model)
    state = {**model.state_dict(), "decode_head.linear_pred.bias": torch.tensor(case["pred_bias"])}
    torch.save({"meta": {}, "state_dict": state}, path)


@pytest.mark.parametrize("name", ["cli_infer", "cli_infer_aug", "cli_infer_im"])
def test_published_command(tmp_path, infer, name):
    case = Case("hfan", name)
    write_videos(case, tmp_path / "data")
    write_checkpoint(case, tmp_path / "a.pth")
    (tmp_path / "out-DAVIS-16/old").mkdir(parents=True)
    (tmp_path / "out-DAVIS-16/old/00000.png").touch()  # of an earlier run
    (tmp_path / "out-DAVIS-16/bear").mkdir(parents=True)
    (tmp_path / "out-DAVIS-16/bear/00099.png").touch()
    infer(
        *("--config", ROOT / case["config_file"], "--checkpoint", tmp_path / "a.pth"),
        *("--output_dir", f"{tmp_path}/out/", "--input_dir", tmp_path / "data", *case["flags"]),
        *("--device", "cpu", "--options", *case["options"]),
    )
    folder, files = tmp_path / "out-DAVIS-16", case["facts"]["files"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == files["final"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files["intermediate"]
    for label, expected in case.arrays.items():
        mask = Image.open(folder / label.removeprefix("labels/"))
        assert mask.mode == "L" and np.mean(np.asarray(mask) != 255 * expected) <= 0.002


def test_masks_lose_nothing_on_their_way():
    """The published detour over a coloured JPEG changes 320 pixels of this mask; ours is written from the labels."""
    case = Case("hfan", "archive")
    mask = fill.blocks(*case["inputs"]["mask"][1:]).numpy().astype(np.uint8)
    assert (case.arrays["archived"] != 255 * mask).sum() == case["expected"]["changed"]


@pytest.fixture
def data(tmp_path):
    write_vos(tmp_path / "data", {"bear": 3}, "train")
    return write_vos(tmp_path / "data", {"bear": 4, "cow": 3})


def test_official_config_runs_to_the_end(tmp_path, data, infer, caplog):
    """Training with evaluation, a test with every file, and inference with scores, by official names alone."""
    config = vos_config(tmp_path / "official.py", data)
    cfg = load_config(config)
    scores = train_segmentor(cfg, tmp_path / "work", seed=1208, deterministic=True)
    assert scores.keys() == {"JM", "JO", "FM", "FO"}
    options = TestOptions(out=tmp_path / "res.pkl", metrics=("VOS", "DAVIS16"), save_png=True, progress=False)
    evaluators = run_test(cfg, tmp_path / "work/iter_2.pth", CPU, options)
    assert evaluators[0].scores() == pytest.approx(scores)
    assert len(list(read_label_pickle(tmp_path / "res.pkl"))) == 7
    assert "J-Mean" in json.dumps(json.loads((tmp_path / "res.json").read_text()))
    output = infer(
        *("--config", config, "--checkpoint", tmp_path / "work/iter_2.pth", "--output_dir", tmp_path / "out"),
        *("--opacity", "0.5", "--fast-test", "mp", "--device", "cpu", "--out", tmp_path / "again.pkl"),
        *("--save", "features"),
    )
    assert "--fast-test mp has no effect in a test" in caplog.text
    assert "DAVIS-2016" in output and f"masks: {tmp_path}/out-DAVIS-16" in output
    maps = list(read_label_pickle(tmp_path / "res.pkl"))
    for again, labels in zip(read_label_pickle(tmp_path / "again.pkl"), maps):
        np.testing.assert_array_equal(again, labels)
    mask = cv2.imread(str(tmp_path / "out-DAVIS-16/bear/00001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, 255 * maps[1])
    painted = cv2.imread(str(tmp_path / "out/bear_00001.jpg"))
    assert painted.shape == (*SIZE, 3)
    sheets = sorted((tmp_path / "out/features").glob("*/*.jpg"))
    assert [str(path.relative_to(tmp_path / "out/features")) for path in sheets][:2] == [
        "bear/00000.jpg", "bear/00001.jpg"
    ] and len(sheets) == 7  # fmt: skip
    assert cv2.imread(str(sheets[0])).shape == (5 * (180 + 18), 5 * 240, 3)  # five columns, and a row of pictures


def test_features_of_a_video_file(tmp_path, data, infer):
    config = vos_config(tmp_path / "official.py", data)
    frames = tmp_path / "bear"
    frames.mkdir()
    for path in (data / "frame/val").glob("bear*"):
        (frames / path.name).write_bytes(path.read_bytes())
    arguments = (frames, config, "none", "--out", tmp_path / "out", "--flow", "farneback", "--device", "cpu")
    infer(*arguments, "--save", "features", "--options", "model.decode_head.select_method=base")
    sheets = sorted((tmp_path / "out/bear/features").iterdir())
    assert len(sheets) == 4 and cv2.imread(str(sheets[0])).shape[1] == 3 * 240  # nothing is aligned
    make_data(tmp_path / "vspw", {"a": 12})
    other = write_config(tmp_path / "cffm.py", tmp_path / "vspw")
    output = infer(frames, other, "none", "--out", tmp_path / "none", "--save", "features", "--device", "cpu", status=2)
    assert "--save features" in output and not (tmp_path / "none").exists()


def test_mistakes_are_one_message(tmp_path, data, infer):
    config = vos_config(tmp_path / "official.py", data)
    (data / "flow/val/bear_00003.jpg").unlink()
    arguments = ("--config", config, "--checkpoint", "none", "--output_dir", tmp_path / "out", "--device", "cpu")
    output = infer(*arguments, status=2)
    assert "without optical flow" in output and "Traceback" not in output
    assert not (tmp_path / "out-DAVIS-16").exists()
    output = infer(*arguments, "--options", "model.decode_head.select_method=hfn", status=2)
    assert "select_method" in output and "Traceback" not in output
    output = infer(*arguments, "--input_dir", tmp_path / "nowhere", status=2)
    assert "nowhere/frame/val: no such folder" in output


def test_other_data_sets_have_no_binary_masks(tmp_path, infer):
    make_data(tmp_path / "data", {"a": 12})
    config = write_config(tmp_path / "cffm.py", tmp_path / "data")
    output = infer("--config", config, "--checkpoint", "none", "--output_dir", tmp_path / "out", status=2)
    assert "--output_dir" in output and "VSPWDataset" in output
