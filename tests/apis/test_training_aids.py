"""What docs/training.md offers for small sets and rare classes, as it is printed there, for CFFM."""

import argparse
import json
import re
import shlex

import pytest

from mmseg.apis.cli import add_options
from mmseg.apis.training import train_segmentor
from mmseg.config import load_config
from mmseg.engine.checkpoints import read_checkpoint
from mmseg.engine.log_files import read_run
from mmseg.engine.optim import build_optimizer
from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from tests.apis.test_training import small_cffm
from tests.tools.processes import ROOT

TOY = ROOT / "local_configs" / "toy" / "cffm.b0.py"
PART = (ROOT / "docs/training.md").read_text().partition("## Small sets and rare classes")[2].partition("\n## ")[0]
CONFIG, LINES = (re.search(f"```{kind}\n(.*?)```", PART, re.DOTALL)[1] for kind in ("python", "bash"))


def test_all_of_it_at_once(tmp_path, capsys):
    text = CONFIG.replace(
        ', dict(type="WandbLoggerHook", init_kwargs=dict(project="mine"))', ""
    )  # tests/engine/test_log.py
    assert text.count("\n") == CONFIG.count("\n") and "Wandb" not in text
    base = small_cffm(tmp_path)
    (tmp_path / "base.py").write_text(base.dump())
    (tmp_path / "aids.py").write_text(f"_base_ = ['{tmp_path}/base.py']\n{text}")
    options = {"early_stopping.patience": 1, "early_stopping.min_delta": 1.0, "evaluation.interval": 1,
               "runner.max_iters": 9, "lr_config.warmup": None}  # fmt: skip
    train_segmentor(load_config(tmp_path / "aids.py", options), tmp_path / "run", seed=0)
    run = read_run(tmp_path / "run")
    assert [entry["iter"] for entry in run.train] == [1, 2]  # no score rises by 1 in the second evaluation
    assert all(run.train[0][f"decode.loss_{name}"] > 0 for name in ("ce", "dice", "focal"))
    saved = read_checkpoint(tmp_path / "run" / "latest.pth")
    assert "trained_weights" in saved  # beside the averages
    header = json.loads(next((tmp_path / "run").glob("*.log.json")).read_text().splitlines()[0])
    assert header["model"]["trained"] < header["model"]["parameters"]
    assert run.train[1]["lr"] < run.train[0]["lr"]  # cosine from the start


@pytest.mark.parametrize("line", LINES.splitlines())
def test_option_lines(line):
    parser = argparse.ArgumentParser()
    add_options(parser)
    cfg = load_config(TOY, {**parser.parse_args(shlex.split(line)).options, "data.num_classes": 3})
    model = build_segmentor(cfg.model)
    build_optimizer(model, cfg.optimizer)
    frozen = any(not p.requires_grad for p in model.parameters())
    assert frozen == ("frozen" in line)
    if "policy=cosine" in line:
        assert cfg.lr_config == {"policy": "cosine"}
        assert cfg.model.decode_head.loss_decode.class_weight == [0.2, 1, 2]
    assert ("DiceLoss" in line) == (cfg.model.decode_head.loss_decode == {"type": "DiceLoss"})


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"lr_config.policy": "cosine"}, "lr_config"),  # the base has a power
        ({"model.decode_head.loss_decode.type": "DiceLoss"}, "model.decode_head.loss_decode"),  # and a use_sigmoid
    ],
)
def test_what_is_left_of_the_base_is_told_with_how_to_drop_it(options, place):
    with pytest.raises(ConfigError) as error:
        build_segmentor(load_config(TOY, options).model)
    assert f"{place}._delete_=True" in error.value.action
