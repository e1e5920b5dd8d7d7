"""What a folder must be to be opened as a model, and what is refused."""

import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmseg.carried_config import config_of
from mmseg.errors import CheckpointError
from mmseg.model_folder import is_model_folder, locate
from mmseg.weights import read_checkpoint

OURS = {"writer": "mmseg-video", "format": 1, "CLASSES": ["a"], "config": {"model": {"type": "Mine"}}, "files": []}


@pytest.fixture
def folder(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(OURS))
    return tmp_path


def test_it_is_read_as_a_checkpoint(folder):
    checkpoint = read_checkpoint(folder)
    assert checkpoint["state_dict"]["w"].tolist() == [1, 1] and checkpoint["meta"]["CLASSES"] == ["a"]
    assert config_of(folder).model.type == "Mine" == config_of(folder / "model.safetensors").model.type


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"model_type": "segformer"}, "not written by this package .model_type 'segformer'"),
        ([1], "not written by this package"),
        ({**OURS, "format": 2, "mmseg_version": "9.0"}, "of format 2, by version '9.0'"),
        ({**OURS, "config": "import os\nmodel = dict(type='Mine')"}, "its config is a str, no plain data"),
        ({**OURS, "config": None}, "its config is a NoneType"),
    ],
)
def test_other_facts(folder, facts, message):
    (folder / "config.json").write_text(json.dumps(facts))
    for read in (read_checkpoint, config_of):
        with pytest.raises(CheckpointError, match=message):
            read(folder)


def test_damaged_folders(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"", whole[:-3], whole[:5], b"\xff" * 100, b"PK" + whole):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read, it is truncated"):
            read_checkpoint(folder)
        assert locate(folder)[1]["CLASSES"] == ["a"]
    (folder / "config.json").write_text('{"writer": ')
    with pytest.raises(CheckpointError, match="no JSON file that can be read"):
        read_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"there is no model.safetensors"):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"is a folder without config.json"):
        read_checkpoint(folder)


def test_an_export_is_no_checkpoint(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is an export.*\n.*\n.*tools/infer\.py runs exports"):
        read_checkpoint(tmp_path)


def test_a_folder_that_may_not_be_read():
    """Root, who may read everything, takes the place of another user."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as place:  # tmp_path lies in a folder of this user alone
        os.chmod(place, 0o755)
        inner = Path(place, "inner")
        inner.mkdir(mode=0)
        if user == 0:
            os.seteuid(65534)
        try:
            assert not is_model_folder(inner) and not is_model_folder(inner / "x")
            with pytest.raises(CheckpointError, match="inner: no permission to look into it"):
                read_checkpoint(inner)
            with pytest.raises(CheckpointError, match=r"inner/x: cannot be read \(Permission denied\)"):
                read_checkpoint(inner / "x")
        finally:
            os.seteuid(user)


def test_facts_in_the_header_of_a_file(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "plain.safetensors")
    assert locate(tmp_path / "plain.safetensors")[1] == {}
    with pytest.raises(CheckpointError, match="carries no config"):
        config_of(tmp_path / "plain.safetensors")
    save_file({"w": torch.ones(1)}, tmp_path / "ours.safetensors", {"mmseg_meta": '{"CLASSES": ["a"]}'})
    assert read_checkpoint(tmp_path / "ours.safetensors")["meta"] == {"CLASSES": ["a"]}
    save_file({"w": torch.ones(1)}, tmp_path / "bad.safetensors", {"mmseg_meta": "[1"})
    with pytest.raises(CheckpointError, match="no JSON object"):
        read_checkpoint(tmp_path / "bad.safetensors")
