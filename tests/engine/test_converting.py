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
from mmseg.models import build_segmentor
from mmseg.weights import read_checkpoint
from tests.contract.systems import SYSTEMS
from tests.models.test_mit_weights import HUGGING_FACE, openmmlab, renamed
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
    with torch.device("meta"):  # 67 million numbers: they are counted up, drawing them takes seconds
        state = build_segmentor(dict(type="GSFM", single_object=True)).state_dict()
    state = {key: torch.full(value.shape, i, dtype=value.dtype) for i, (key, value) in enumerate(state.items(), 1)}
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


@pytest.mark.parametrize("source", ["OpenMMLab", "Hugging Face"])
def test_entries_that_were_joined_and_parted(source, tmp_path):
    """Backbones of other origins: query, key and value in one entry, or each in its own."""
    [system] = [system for system in SYSTEMS if system.name == "HFAN"]
    state, inner = system.model().state_dict(), "backbone.backbone."
    backbone = {key.removeprefix(inner): value for key, value in state.items() if key.startswith(inner)}
    theirs = openmmlab(backbone) if source == "OpenMMLab" else renamed(backbone, HUGGING_FACE)
    theirs = {inner + key: value for key, value in theirs.items()}
    theirs |= {key: value for key, value in state.items() if not key.startswith(inner)}
    torch.save(theirs, tmp_path / "theirs.pth")
    done = convert(tmp_path / "theirs.pth", tmp_path / "ours.pth", Config({"model": system.config()}))
    assert all(torch.equal(value, state[key]) for key, value in read_checkpoint(done.target)["state_dict"].items())
    assert "dropped: 0, new: 0" in done.summary()
    entries = {entry.target: entry for entry in done.entries}
    kv = entries[f"{inner}block1.0.attn.kv.weight"]
    if source == "OpenMMLab":
        assert kv.source == f"{inner}layers.0.1.0.attn.attn.in_proj_weight" and kv.note == "a part of it"
        assert entries[f"{inner}block1.0.mlp.fc1.weight"].note == "reshaped"
    else:
        key = f"{inner}encoder.block.0.0.attention.self.key.weight"
        assert kv.source == f"{key} + {key.replace('.key.', '.value.')}" and kv.note == "joined"


def test_one_tensor_under_two_names(tmp_path):
    tensor = torch.ones(2)
    torch.save({"a": tensor, "b": tensor}, tmp_path / "tied.pth")
    done = convert(tmp_path / "tied.pth", tmp_path / "new.safetensors")
    assert "same name and shape: 2, renamed: 0, other shape: 0, dropped: 0" in done.summary()
    assert sorted(read_checkpoint(done.target)["state_dict"]) == ["a", "b"]


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


def test_another_type_of_numbers_is_told(tmp_path):
    model = init_segmentor(checkpoint=small_model(tmp_path))
    for kind, values in ((torch.float64, "are rounded"), (torch.float16, "are the same")):
        torch.save({name: value.to(kind) for name, value in model.state_dict().items()}, tmp_path / "other.pth")
        done = convert(tmp_path / "other.pth", tmp_path / f"{kind}.pth", model.cfg)
        found = f"numbers were {str(kind)[6:]}, and are float32 as in the config's model: the values {values}"
        assert found in done.summary()
    assert "numbers were" not in convert(done.target, tmp_path / "again.pth").summary()


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
