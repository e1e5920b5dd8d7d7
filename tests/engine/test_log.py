"""What a run writes about itself: lines for people and programs, curves where they are asked for."""

import importlib.util
import json
import re
import sys

import cv2
import numpy as np
import pytest

from mmseg.engine.log import close_logging, setup_logging
from mmseg.errors import ConfigError
from tests.engine.toy_training import lines, trainer

BOARD = [{"type": "TextLoggerHook", "by_epoch": False}, {"type": "TensorboardLoggerHook"}]


def test_logs(tmp_path):
    setup_logging(tmp_path / "log.log")
    try:
        trainer(tmp_path, {"log_config.interval": 4}).run()
    finally:
        close_logging()
    text = (tmp_path / "log.log").read_text()
    pattern = (
        r"Iter \[4/6\] lr: \d\.\d{3}e-\d\d, eta: 0:00:\d\d, time: \d\.\d{3}, data_time: \d\.\d{3}, "
        r"decode\.loss_seg: \d\.\d{4}, decode\.acc_seg: \d+\.\d{4}, loss: \d\.\d{4}\n"
    )
    assert re.search(pattern, text), text
    assert "Iter [6/6]" in text and str(tmp_path / "iter_6.pth") in text
    header = json.loads((tmp_path / "log.log.json").read_text().splitlines()[0])
    assert header["seed"] == 5 and "torch" in header["env"]
    entry = lines(tmp_path)[0]
    assert entry["lr"] == pytest.approx(0.01 * (1 - 3 / 6))
    assert entry["loss"] == entry["decode.loss_seg"]


def test_lines_hold_the_means_of_their_iterations(tmp_path):
    for interval in (1, 4):
        trainer(tmp_path / str(interval), {"log_config.interval": interval}).run()
    single, (first, last) = lines(tmp_path / "1"), lines(tmp_path / "4")
    assert first["loss"] == pytest.approx(sum(entry["loss"] for entry in single[:4]) / 4)
    assert last["loss"] == pytest.approx(sum(entry["loss"] for entry in single[4:]) / 2)


def test_events_are_written_where_they_are_asked_for(tmp_path):
    for name, hooks in (("with", BOARD), ("without", BOARD[:1])):
        trainer(tmp_path / name, {"log_config.hooks": hooks, "runner.max_iters": 2}).run()
    assert list((tmp_path / "with" / "tf_logs").glob("events*"))
    assert not (tmp_path / "without" / "tf_logs").exists()


WANDB = """
import json, pathlib

class Run:
    def __init__(self, **settings):
        self.file = pathlib.Path(settings["dir"]) / "wandb.txt"
        self.write(settings)
    def write(self, entry):
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\\n")
    def log(self, values, step):
        self.write({name: getattr(value, "pixels", value) for name, value in values.items()} | {"step": step})
    def finish(self):
        self.write("finished")

class Image:
    def __init__(self, picture):
        self.pixels = picture.tolist()

def init(**settings):
    if settings.get("project") == "locked":
        raise RuntimeError("no account")
    return Run(**settings)
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A package of this name that writes to a file what it is given; the real one is no requirement."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("wandb", None)


def board(project: str) -> list[dict]:
    return [{"type": "WandbLoggerHook", "init_kwargs": {"project": project}}]


def test_wandb_gets_settings_losses_and_scores(tmp_path, wandb):
    trainer(tmp_path / "run", {"log_config.hooks": board("p")}, lambda model: {"mIoU": 0.5}).run()
    entries = [json.loads(line) for line in (tmp_path / "run" / "wandb.txt").read_text().splitlines()]
    assert entries[0] == {"dir": str(tmp_path / "run"), "project": "p"} and entries[-1] == "finished"
    assert [entry["step"] for entry in entries[1:-1]] == [2, 3, 4, 6, 6]
    assert entries[1]["train/loss"] == lines(tmp_path / "run")[0]["loss"]
    assert entries[2] == {"val/mIoU": 0.5, "step": 3}


PICTURE = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)  # BGR


def test_wandb_gets_pictures(tmp_path, wandb):
    training = trainer(tmp_path / "run", {"log_config.hooks": board("p")}, lambda model: {"mIoU": 0.5})
    training.pictures = lambda: {"val/frames": PICTURE}
    training.run()
    entries = [json.loads(line) for line in (tmp_path / "run" / "wandb.txt").read_text().splitlines()]
    assert {"val/frames": PICTURE[..., ::-1].tolist(), "step": 3} in entries


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb, an optional extra, is not installed here")
def test_the_real_wandb_keeps_curves_and_pictures_without_an_account(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    training = trainer(tmp_path / "run", {"log_config.hooks": board("p")}, lambda model: {"mIoU": 0.5})
    training.pictures = lambda: {"val/frames": np.tile(PICTURE, (8, 8, 1))}
    training.run()
    [folder] = (tmp_path / "run" / "wandb").glob("offline-run-*")
    [kept] = folder.glob("*.wandb")
    assert b"train/loss" in kept.read_bytes() and b"val/mIoU" in kept.read_bytes()
    [picture, _] = sorted(folder.glob("files/media/images/val/frames_*.png"))
    assert cv2.imread(str(picture))[0, 1].tolist() == PICTURE[0, 1].tolist()


def test_wandb_that_cannot_start_is_one_message(tmp_path, wandb):
    with pytest.raises(ConfigError, match=r"W&B cannot start: RuntimeError: no account(.|\n)*WANDB_MODE=offline"):
        trainer(tmp_path / "run", {"log_config.hooks": board("locked")}).run()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_wandb_that_is_not_installed_is_one_message(tmp_path):
    with pytest.raises(ConfigError, match="without the package wandb"):
        trainer(tmp_path, {"log_config.hooks": board("p")})
