"""Test runs and validations called from a program: autocast that is really on, names of scores, rates of overlays."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmseg.apis import init_segmentor, segment_video
from mmseg.apis.testing import TestOptions, Validation
from mmseg.apis.testing import test_model as run_test
from mmseg.config import load_config
from mmseg.errors import ConfigError, DataError
from tests.engine.tiny_vspw import make_data, write_config

CPU = torch.device("cpu")


@pytest.fixture
def cfg(tmp_path):
    """A per-frame model and three videos of three frames, for testing and validation."""
    make_data(tmp_path / "data", {"a": 3, "b": 3, "c": 3})
    cfg = load_config(write_config(tmp_path / "config.py", tmp_path / "data", clip=False))
    cfg.data.val = cfg.data.test
    return cfg


@pytest.fixture
def dtypes():
    """The types that convolutions compute in."""
    seen = set()

    def look(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            seen.add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(look)
    yield seen
    hook.remove()


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_autocast_is_on_in_a_test_if_asked_for(tmp_path, cfg, dtypes, amp):
    run_test(cfg, None, CPU, TestOptions(tmp_path / "res.pkl", amp=amp, progress=False))
    assert dtypes == {amp or torch.float32}


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_autocast_is_on_in_a_validation_if_asked_for(cfg, dtypes, amp):
    validation, model = Validation(cfg), init_segmentor(cfg).train()
    scores = validation(model, amp=amp)
    assert dtypes == {amp or torch.float32} and model.training
    assert list(scores) == validation.score_names and 0 <= scores["IoU.floor"] <= 1


def test_a_validation_can_be_repeated(cfg):
    validation, model = Validation(cfg), init_segmentor(cfg)
    first = validation(model)
    assert str(validation(model)) == str(first)  # nan is nan


def test_metrics_of_a_validation(cfg):
    assert Validation(cfg).metric_names == ("mIoU",)
    cfg.evaluation = dict(metric=["mDice", "mIoU"])
    assert Validation(cfg).metric_names == ("mDice", "mIoU")
    cfg.evaluation = dict(metric="mDise")
    with pytest.raises(ConfigError, match=r"evaluation\.metric = mDise(.|\n)*did you mean 'mDice'"):
        Validation(cfg)


def test_a_validation_needs_masks(tmp_path, cfg):
    for mask in (tmp_path / "data" / "data" / "b" / "mask").iterdir():
        mask.unlink()
    (tmp_path / "data" / "data" / "b" / "mask").rmdir()
    (tmp_path / "data" / "val.txt").rename(tmp_path / "data" / "test.txt")
    cfg.data.val.split = "test"
    with pytest.raises(DataError, match=r"without masks \(1 of 3, the first is 'b'\)"):
        Validation(cfg)


def test_evaluation_switched_off(tmp_path, cfg):
    assert run_test(cfg, None, CPU, TestOptions(tmp_path / "res.pkl", metrics=(), progress=False)) == []
    assert [path.name for path in tmp_path.glob("res*")] == ["res.pkl"]


def test_overlays_have_the_rate_of_the_source(tmp_path, cfg):
    writer = cv2.VideoWriter(str(tmp_path / "slow.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 7, (70, 44))
    for t in range(3):
        writer.write(np.full((44, 70, 3), 40 * t, np.uint8))
    writer.release()
    model = init_segmentor(cfg)
    for source, rate in ((tmp_path / "slow.avi", 7), (tmp_path / "data" / "data" / "a" / "origin", 15)):
        done = segment_video(model, source, tmp_path / "out", progress=False)
        assert cv2.VideoCapture(str(next(done.folder.glob("*_overlay.*")))).get(cv2.CAP_PROP_FPS) == rate
