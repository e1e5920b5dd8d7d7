"""Checkpoints that carry their config: used without a config file, and without executing anything."""

import json
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg.apis import init_segmentor
from mmseg.carried_config import config_of, packed_config
from mmseg.errors import CheckpointError, ConfigError
from tests.engine.tiny_vspw import CLASSES, make_data, write_checkpoint, write_config
from tests.tools.processes import ROOT, finish


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model, its config, and a folder in which there is no config any more."""
    folder = tmp_path_factory.mktemp("carried")
    make_data(folder / "data", {"a": 4})
    config = write_config(folder / "baseline.py", folder / "data", clip=False)
    write_checkpoint(folder / "model.pth", config, **{"data.test.dilation": (-2, -1)})
    torch.manual_seed(0)
    model = init_segmentor(config)
    config.unlink()
    return model, folder


def test_model_without_a_config_file(trained):
    model, folder = trained
    loaded = init_segmentor(checkpoint=folder / "model.pth", options={"data.test.split": "other"})
    assert loaded.cfg.data.test.split == "other" and loaded.cfg.data.test.dilation == [-2, -1]
    assert "test_pipeline" not in loaded.cfg and tuple(loaded.CLASSES) == CLASSES
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_commands_without_a_config_file(trained, call, monkeypatch):
    _, folder = trained
    monkeypatch.chdir(folder)
    call("test.py", "model.pth", "--out", "res.pkl", "--device", "cpu")
    report = json.loads((folder / "res.json").read_text())
    assert report["run"]["config"] is None and report["run"]["checkpoint"] == "model.pth"
    call("publish_model.py", "model.pth", folder / "given" / "away.pth")
    [given] = (folder / "given").iterdir()
    call("test.py", "--out", "again.pkl", given, "--device", "cpu")
    assert (folder / "again.pkl").read_bytes() == (folder / "res.pkl").read_bytes()
    message = call("test.py", "none", "--out", "no.pkl", status=2)
    assert "an untrained network without a config" in message and not (folder / "no.pkl").exists()
    assert "no checkpoint" in call("test.py", "c.py", "--out", "no.pkl", status=2)


@pytest.mark.parametrize("files", [["model.pth"], ["config.py", "model.pth"]])
def test_dist_test_without_a_config_file(tmp_path, files):
    """What the script starts Python with."""
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    script, flags = ROOT / "tools/dist_test.sh", ["--out", "single.pkl"]
    one, two = (finish([script, *files, n, *flags], tmp_path, PYTHON=str(tmp_path / "python")) for n in (0, 2))
    assert one.split() == [str(ROOT / "tools/test.py"), *files, *flags, "--device", "cpu"]
    assert two.split() == [
        *(str(ROOT / "tools/launch.py"), "29822", "2", str(ROOT / "tools/test.py")),
        *(*files, *flags, "--launcher", "pytorch"),
    ]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({}, "carries no config"),
        ({"config": "import os\nmodel = dict(type='EncoderDecoder_clips')"}, "text of Python, which is not executed"),
        ({"config": "[1]"}, "not executed"),
        ({"config": {"model": 3}}, "not executed"),
    ],
)
def test_nothing_is_executed(tmp_path, meta, message):
    torch.save({"meta": meta, "state_dict": {"a": torch.ones(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=message) as refused:
        init_segmentor(checkpoint=tmp_path / "foreign.pth")
    assert "init_segmentor(config, checkpoint)" in refused.value.action


def test_modules_of_the_author_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "module_of_an_author.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(custom_imports=dict(imports=["module_of_an_author", "json"]), model=dict(type="Theirs")))
    torch.save({"meta": packed_config(cfg), "state_dict": {"a": torch.ones(1)}}, "theirs.pth")
    with pytest.raises(ConfigError, match="not imported on the word of a checkpoint") as refused:
        config_of("theirs.pth")
    assert "custom_imports.imports=module_of_an_author" in refused.value.action
    assert "module_of_an_author" not in sys.modules
    with pytest.raises(ConfigError, match="cannot be imported: ValueError: executed"):  # the user's own word
        (tmp_path / "module_of_an_author.py").write_text("raise ValueError('executed')")
        config_of("theirs.pth", {"custom_imports.imports": ["module_of_an_author"]})


def test_a_config_that_is_no_plain_data_is_told(caplog):
    assert packed_config({"model": {"mean": np.float32(3)}}) == {} and "model.mean is no plain data" in caplog.text
    assert packed_config({"data": {"test": {"label_map": {1: 2}}}}) == {} and "data.test.label_map" in caplog.text
    carried = packed_config({"variable": np.float32(3), "seed": 3, "data": {"test": {"size": (1, 2)}}})
    assert json.loads(carried["config"]) == {"seed": 3, "data": {"test": {"size": [1, 2]}}}


def test_neither_config_nor_checkpoint():
    with pytest.raises(ConfigError, match="config = None without a checkpoint"):
        init_segmentor()
