"""Weights between files of the official code, ours and safetensors: equal both ways, and a true account of it."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg.apis import init_segmentor
from mmseg.engine.converting import convert
from mmseg.errors import CheckpointError, ConfigError, WriteError
from mmseg.weights import read_checkpoint
from tests.contract.systems import SYSTEMS
from tests.models.gsfm_cases import network
from tests.shared_models import small_model


def official_file(path, state):
    """What mmcv leaves after a training on several GPUs."""
    state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    meta = {"CLASSES": ("a", "b"), "PALETTE": np.eye(2, 3, dtype=np.uint8), "iter": 9, "config": "import os"}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize("name", ["CFFM", "CFFM++", "MRCFA", "HFAN", "THE-Mask"])
def test_official_files_there_and_back(name, tmp_path):
    [system] = [system for system in SYSTEMS if system.name == name]
    state = system.model().state_dict()
    source = official_file(tmp_path / "official.pth", state)
    there = convert(source, tmp_path / "ours.safetensors", Config({"model": system.config()}))
    assert set(there.dropped) == {"optimizer", "meta.iter"} and "resume from the old one" in there.summary()
    assert there.table(full=True).count("module. taken off") == len(state)
    back = convert(there.target, tmp_path / "back.pth", form="official")  # the config came along
    assert f"entries: {len(state)}, same name and shape: {len(state)}" in back.summary()
    written = torch.load(tmp_path / "back.pth", weights_only=True)
    assert written["meta"] == {"CLASSES": ["a", "b"], "PALETTE": [[1, 0, 0], [0, 1, 0]]}
    assert list(written) == ["meta", "state_dict"] and list(written["state_dict"]) == list(state)
    assert all(torch.equal(value, written["state_dict"][key]) for key, value in state.items())


def test_gsfm_there_and_back(tmp_path):
    """Its files are state dicts; the network of a single object gets a channel, as in its own evaluation."""
    state = network(single_object=True).state_dict()
    torch.save({"it": 3, "network": state, "optimizer": {}, "scheduler": {}}, tmp_path / "s0_checkpoint.pth")
    done = convert(tmp_path / "s0_checkpoint.pth", tmp_path / "new.safetensors", Config({"model": dict(type="GSFM")}))
    assert "checkpoint of GSFM's training script -> safetensors" in done.summary()
    assert "other shape: 1, dropped: 0, new: 0" in done.summary()
    [row] = [line for line in done.table().splitlines() if "a channel of zeros was added" in line]
    assert "value_encoder.conv1.weight" in row and "[64, 4, 7, 7] -> [64, 5, 7, 7]" in row
    convert(done.target, tmp_path / "back.pth", form="official")
    written = torch.load(tmp_path / "back.pth", weights_only=True)
    assert isinstance(written, OrderedDict) and list(written) == list(state)
    wide = written["value_encoder.conv1.weight"]
    assert not wide[:, 4].any() and torch.equal(wide[:, :4], state["value_encoder.conv1.weight"])
    assert all(torch.equal(value, written[key]) for key, value in state.items() if key != "value_encoder.conv1.weight")


def test_what_is_told(tmp_path):
    model = small_model(tmp_path)
    state = read_checkpoint(model)["state_dict"]
    state["extra.weight"] = torch.ones(2)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "extra.pth")
    (tmp_path / "c.py").write_text(f"model = dict({init_segmentor(checkpoint=model).cfg.model})")
    done = convert(tmp_path / "extra.pth", tmp_path / "new.pth", tmp_path / "c.py")
    assert "extra.weight" in done.table() and "dropped: the model has no such entry" in done.table()
    assert "dropped: 1, new: 0" in done.summary()
    assert "extra.weight" not in read_checkpoint(done.target)["state_dict"]
    assert len(done.table().splitlines()) < 30 and len(done.table(full=True).splitlines()) == len(state) + 2
    plain = convert(tmp_path / "extra.pth", tmp_path / "new.safetensors")
    assert "compared with no model" in plain.summary()
    assert len(read_checkpoint(plain.target)["state_dict"]) == len(state)


def test_bad_input(tmp_path):
    model = small_model(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="does not fit GSFM"):
        convert(model, tmp_path / "new.pth", Config({"model": dict(type="GSFM")}))
    torch.save(torch.load(model)["state_dict"], tmp_path / "bare.pth")
    with pytest.raises(ConfigError, match="for the official code, without a config"):
        convert(tmp_path / "bare.pth", tmp_path / "new.pth", form="official")
    (tmp_path / "bare.pth").unlink()
    with pytest.raises(CheckpointError, match=r"for the official code\n  expected: a name that ends in .pth, .pt"):
        convert(model, tmp_path / "new.safetensors", form="official")
    with pytest.raises(CheckpointError, match=r"tools/publish_model.py"):
        convert(model, tmp_path / "new")
    with pytest.raises(WriteError, match="is there already"):
        convert(model, model)
    with pytest.raises(ConfigError, match="--options without a config"):
        (tmp_path / "empty").write_text("")
        convert(_bare(tmp_path), tmp_path / "new.pth", options={"a": 1})
    assert sorted(path for path in tmp_path.iterdir() if path.name not in ("empty", "b.pth")) == before


def _bare(folder):
    torch.save({"w": torch.ones(1)}, folder / "b.pth")
    return folder / "b.pth"


def test_the_command(tmp_path, call):
    model = small_model(tmp_path)
    output = call("convert.py", model, tmp_path / "new.safetensors")
    assert "backbone.block1.*" in output and "safetensors, with classes and config in its header" in output
    assert "is there already" in call("convert.py", model, tmp_path / "new.safetensors", status=2)
    again = init_segmentor(checkpoint=tmp_path / "new.safetensors")
    assert list(again.CLASSES) == ["floor", "box", "ball"] and json.dumps(again.cfg.model.to_dict())
