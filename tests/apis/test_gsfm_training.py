"""GSFM from toy data to scores: stage 0, stage 3 from its checkpoint, and a test on DAVIS's layout."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg.apis import testing
from mmseg.apis.gsfm_scripts import training_config
from mmseg.apis.training import train_segmentor
from mmseg.config import load_config
from mmseg.images import read_mask
from mmseg.making.toy_given import generate_toy_given
from tests.golden_cases import GOLDEN

TOY = GOLDEN.parents[1] / "local_configs" / "toy"
SHORT = {"runner.max_iters": 1, "data.samples_per_gpu": 1, "data.workers_per_gpu": 0, "log_config.interval": 1}


def test_both_stages_and_a_test(tmp_path, caplog):
    root = generate_toy_given(tmp_path / "toy", 2, 1, 2, 6, (32, 48))
    davis = str(root / "DAVIS/2017/trainval")
    options = {**SHORT, "data.train.data_root": str(root / "static"), "data.train.crop_size": 32}
    options["optimizer.type"] = "SGD"  # without moments a checkpoint is a third as large
    train_segmentor(load_config(TOY / "gsfm_stage0.py", options), tmp_path / "s0", seed=0, validate=False)
    options = {**SHORT, "data.train.data_root": davis, "data.train.crop_size": 32}
    options |= {"optimizer.type": "SGD", "optimizer.momentum": 0.9}
    options |= {"data.val.data_root": davis, "data.test.data_root": davis, "evaluation.interval": None}
    cfg = load_config(TOY / "gsfm_stage3.py", options)
    start = str(tmp_path / "s0" / "iter_1.pth")
    scores = train_segmentor(cfg, tmp_path / "s3", seed=0, load_from=start)
    assert "J&F-Mean" in scores
    _resume_with_other_weights(cfg, tmp_path)
    checkpoint = tmp_path / "s3" / "iter_1.pth"
    first = torch.load(checkpoint, weights_only=True, mmap=True)["state_dict"]["value_encoder.conv1.weight"]
    assert first.shape == (64, 5, 7, 7)
    out = testing.TestOptions(out=tmp_path / "out", save_png=True, progress=False)
    (evaluator,) = testing.test_model(cfg, checkpoint, torch.device("cpu"), out)
    assert evaluator.scores()["J&F-Mean"] == pytest.approx(scores["J&F-Mean"], abs=1e-6)
    assert len(list((tmp_path / "out/result_submission/val_000").glob("*.png"))) == 6
    assert "undefined" not in caplog.text
    for path in root.glob("DAVIS/2017/trainval/Annotations/**/*.png"):
        Image.fromarray(np.where(read_mask(path), np.uint8(255), np.uint8(0))).save(path)
    out = testing.TestOptions(out=tmp_path / "void", progress=False)
    (evaluator,) = testing.test_model(cfg, checkpoint, torch.device("cpu"), out)
    assert not np.isfinite(list(evaluator.scores().values())).any()
    assert "J&F-Mean is undefined, as are the scores beside it: the truth shows no object; 255 is void" in caplog.text
    for path in tmp_path.rglob("*.pth"):
        path.unlink()  # they are large


def _resume_with_other_weights(cfg, folder) -> None:
    """The names of the published script, and its --load_model with --load_network: the latter's weights win."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict({"runner.max_iters": 2, "checkpoint_config.run_name": "run", "optimizer.lr": 1e-9})
    saved = torch.load(folder / "s3/iter_1.pth", weights_only=True)
    name = "key_proj.key_proj.bias"  # of no consequence when it changes for all keys alike
    torch.save({**saved["state_dict"], name: saved["state_dict"][name] + 1}, folder / "other.pth")
    train_segmentor(
        cfg, folder / "s4", validate=False, resume_from=folder / "s3/latest.pth", replace_by=folder / "other.pth"
    )
    assert sorted(path.name for path in (folder / "s4").glob("*.pth")) == [
        "iter_2.pth", "latest.pth", "run_2.pth", "run_checkpoint.pth",
    ]  # fmt: skip
    plain = torch.load(folder / "s4/run_2.pth", weights_only=True)
    assert list(plain) == list(saved["state_dict"])
    torch.testing.assert_close(plain[name], saved["state_dict"][name] + 1)
    whole = torch.load(folder / "s4/run_checkpoint.pth", weights_only=True, mmap=True)
    assert whole["meta"]["iter"] == 2 and whole["optimizer"]["state"]


def test_flags_of_the_published_script():
    flags = dict.fromkeys(("batch_size", "iterations", "steps", "lr", "gamma", "start_warm", "end_warm"))
    flags |= dict(stage=3, id="NULL", num_workers=8, no_amp=False, debug=False, benchmark=False)
    flags |= dict(static_root="s", bl_root="b", yv_root="/y", davis_root="d")
    cfg = training_config(argparse.Namespace(**flags))
    assert (cfg.data.samples_per_gpu, cfg.runner.max_iters, cfg.optimizer.lr) == (8, 30000, 4e-5)
    assert cfg.data.train[0].dataset.data_root == "d/2017/trainval" and cfg.data.train[1].data_root == "/y/train_480p"
    assert cfg.amp.dtype == "float16" and cfg.checkpoint_config is None
    assert training_config(argparse.Namespace(**{**flags, "id": "s03"})).checkpoint_config.run_name == "s03"
    flags |= dict(
        stage=0, id="s0", batch_size=4, iterations=9, steps=[5, 7], lr=0.1, gamma=0.5, start_warm=1, end_warm=2
    )
    cfg = training_config(argparse.Namespace(**{**flags, "no_amp": True, "debug": True}))
    assert [part.get("dataset", part).data_root for part in cfg.data.train][:2] == ["s/fss", "s/DUTS-TR"]
    assert (cfg.data.samples_per_gpu, cfg.runner.max_iters, cfg.lr_config.step) == (4, 9, [5, 7])
    assert cfg.model.bootstrap == dict(start_warm=1, end_warm=2) and cfg.amp is None and cfg.log_config.interval == 1
