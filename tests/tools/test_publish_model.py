"""``tools/publish_model.py``: files to give away."""

import hashlib
import re

import pytest
import torch

from mmseg.weights import load_checkpoint, read_weights_file
from tests.engine.toy import ToySegmentor
from tests.engine.toy_training import trainer


@pytest.fixture
def trained(tmp_path):
    trainer(tmp_path / "run", {"runner.max_iters": 2, "ema": {"momentum": 0.5}}).run()
    return tmp_path / "run" / "iter_2.pth"


def test_weights_classes_and_nothing_of_the_training(trained, tmp_path, call):
    output = call("publish_model.py", trained, tmp_path / "out" / "toy.pth")
    [path] = (tmp_path / "out").iterdir()
    assert re.fullmatch(r"toy-[0-9a-f]{8}\.pth", path.name) and str(path) in output
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] == path.stem[-8:]
    content, source = read_weights_file(path), read_weights_file(trained)
    assert set(content) == {"meta", "state_dict"} and path.stat().st_size < trained.stat().st_size / 2
    assert content["meta"]["CLASSES"] == ["r", "g", "b"] and content["meta"]["iter"] == 2
    assert not {"seed", "world_size", "time"} & set(content["meta"])
    for name, value in source["state_dict"].items():  # the averages
        assert torch.equal(content["state_dict"][name], value)
    assert "optimizer, trained_weights" in output
    call("publish_model.py", trained, tmp_path / "out" / "toy.pth")
    assert len(list((tmp_path / "out").iterdir())) == 1  # the same bytes again


def test_half_as_large(trained, tmp_path, call):
    call("publish_model.py", trained, tmp_path / "out" / "toy.pth", "--half")
    [path] = (tmp_path / "out").iterdir()
    assert read_weights_file(path)["state_dict"]["conv.weight"].dtype == torch.float16
    model = ToySegmentor()
    load_checkpoint(model, path, purpose="test")
    expected = read_weights_file(trained)["state_dict"]["conv.weight"]
    torch.testing.assert_close(model.conv.weight.detach(), expected, atol=1e-3, rtol=1e-3)
    assert model.conv.weight.dtype == torch.float32


def test_mistakes(trained, tmp_path, call):
    assert "none.pth: no such file" in call("publish_model.py", tmp_path / "none.pth", "out.pth", status=2)
    assert "ends in .pth" in call("publish_model.py", trained, tmp_path / "toy.zip", status=2)
    state = {"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(1)}
    torch.save(state, tmp_path / "bad.pth")
    assert "a has numbers that are not finite" in call("publish_model.py", tmp_path / "bad.pth", "o.pth", status=2)
    torch.save({"a": torch.tensor([1e6])}, tmp_path / "large.pth")
    assert "not finite" in call("publish_model.py", tmp_path / "large.pth", tmp_path / "o.pth", "--half", status=2)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["bad.pth", "large.pth"]
