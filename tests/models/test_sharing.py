"""Models as folders and as repositories: written whole or not at all, opened without executing anything."""

import json
import os
import resource
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmseg.apis import VideoStream, from_pretrained, init_segmentor, push_to_hub, save_pretrained
from mmseg.errors import CheckpointError, ConfigError, DataError, WriteError
from mmseg.models.segmentors import ClipSegmentor, FrameSegmentor
from tests.shared_models import hub, small_model, use_hub  # noqa: F401
from tests.tools.processes import ROOT, running

FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def shared(checkpoint):
    """A folder; of the checkpoint's own place nothing is needed any more."""
    return save_pretrained(checkpoint, checkpoint.with_name("shared"), scores={"mIoU": 0.5}, license="apache-2.0")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_the_checkpoint(checkpoint, shared):
    given, opened = init_segmentor(checkpoint=checkpoint), from_pretrained(shared)
    assert names_in(shared) == FILES and not opened.training
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in given.state_dict().items())
    assert list(opened.CLASSES) == ["floor", "box", "ball"]
    frames = [np.full((45, 70, 3), 40 * i, np.uint8) for i in range(3)]
    for ours, theirs in zip(map(VideoStream(opened).step, frames), map(VideoStream(given).step, frames)):
        assert np.array_equal(ours, theirs)


def test_facts_that_do_not_fit(shared, tmp_path, caplog):
    """Whatever config.json says, it is one error, or a warning where the model can be used."""
    facts = json.loads((shared / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(shared / "model.safetensors")
    wrong = [{"custom_imports": value} for value in ("os", ["os"], {"imports": 5}, {"imports": [["os"]]})]
    backbone = {"type": "subprocess.getoutput", "cmd": f"touch {tmp_path}/executed"}
    wrong += [
        {"filename": "x"},
        {"model": "x"},
        {"data": [1]},
        {"model": {**facts["config"]["model"], "backbone": backbone}},
    ]
    for section in wrong:
        (tmp_path / "config.json").write_text(json.dumps({**facts, "config": {**facts["config"], **section}}))
        with pytest.raises((CheckpointError, ConfigError)):
            from_pretrained(tmp_path)
    assert names_in(tmp_path) == ["config.json", "model.safetensors"]
    (tmp_path / "config.json").write_text(json.dumps({**facts, "CLASSES": "abc"}))
    with pytest.raises(CheckpointError, match="no list of names"):
        from_pretrained(tmp_path)
    facts["config"]["data"]["test"]["type"] = ["VSPWDataset"]
    (tmp_path / "config.json").write_text(json.dumps({**facts, "CLASSES": ["a", "b"]}))
    assert (
        from_pretrained(tmp_path).CLASSES is None and "CLASSES of 2 classes, not used: the model has 3" in caplog.text
    )


def test_what_is_in_it(checkpoint, shared):
    facts = json.loads((shared / "config.json").read_text())
    assert facts["CLASSES"] == ["floor", "box", "ball"] and facts["format"] == 1
    assert facts["config"]["data"]["test"]["data_root"] == "data" and str(checkpoint.parent) not in json.dumps(facts)
    assert load_file(shared / "model.safetensors")["decode_head.conv_seg.bias"].shape == (3,)
    card = (shared / "README.md").read_text()
    assert "| 2 | ball |" in card and "| mIoU | 0.5000 |" in card and "research only" in card
    from huggingface_hub import ModelCard  # which is how the Hub reads it

    data = ModelCard(card).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "mmseg-video", "image-segmentation")
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("mIoU", 0.5)]


def test_the_code_on_the_card_runs(shared, tmp_path, monkeypatch):
    code = (shared / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").symlink_to(shared)
    (tmp_path / "video.mp4").symlink_to(shared.parent / "data" / "data" / "a" / "origin")
    exec(code, {})
    assert len(list((tmp_path / "seen").glob("*/labels/*.png"))) == 4


def test_again_from_the_model(shared, tmp_path):
    model = FrameSegmentor.from_pretrained(shared)
    model.save_pretrained(tmp_path / "half", half=True, name='mine: "x" | <b>')
    assert load_file(tmp_path / "half" / "model.safetensors")["decode_head.conv_seg.bias"].dtype == torch.float16
    again = from_pretrained(tmp_path / "half" / "model.safetensors")  # the file in place of its folder
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=1e-3, rtol=1e-3)
    with pytest.raises(CheckpointError, match=r"a FrameSegmentor\n  expected: a ClipSegmentor"):
        ClipSegmentor.from_pretrained(shared)


def test_a_folder_that_is_there(shared, tmp_path):
    model = from_pretrained(shared)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    model.save_pretrained(tmp_path / "mine")
    with pytest.raises(WriteError, match=r"has config.json, model.safetensors, README.md already"):
        model.save_pretrained(tmp_path / "mine")
    model.save_pretrained(tmp_path / "mine", overwrite=True, name="another")
    assert names_in(tmp_path / "mine") == sorted([*FILES, "notes.txt"]) and names_in(tmp_path) == ["mine"]
    assert "# another" in (tmp_path / "mine" / "README.md").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="a part of the path is a file"):
        model.save_pretrained(tmp_path / "file")


def test_nothing_is_half_written(shared, tmp_path):
    """A full disk (a limit on the size of files) and a kill in the middle: there is the old folder, or none."""
    model, limits = from_pretrained(shared), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(WriteError, match="the file is larger than allowed here"):
            model.save_pretrained(tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(tmp_path) == []
    model.save_pretrained(tmp_path / "new")
    before = (tmp_path / "new" / "config.json").read_bytes()
    code = "import sys; from mmseg.apis import *; save_pretrained(*sys.argv[1:], overwrite=True)"
    command = [sys.executable, "-c", code, shared, tmp_path / "new"]
    with running(command, ROOT) as process:  # which kills it in the end
        while not (tmp_path / ".new.unfinished").exists():
            assert process.poll() is None
            time.sleep(0.001)
    if (tmp_path / "new" / "config.json").exists():
        assert from_pretrained(tmp_path / "new") and (tmp_path / "new" / "config.json").read_bytes() == before
    model.save_pretrained(tmp_path / "new", overwrite=True)
    assert names_in(tmp_path) == ["new"] and names_in(tmp_path / "new") == FILES


def test_bad_input(shared, checkpoint, tmp_path):
    model = from_pretrained(shared)
    with pytest.raises(DataError, match="no scores"):
        model.save_pretrained(tmp_path / "a", scores={"run": {}, "mIoU": float("nan")})
    with pytest.raises(ConfigError, match=r"scores of 1 classes \(wall \.\.\.\)"):
        model.save_pretrained(tmp_path / "a", scores={"mIoU": 1.0, "per_class": [{"class": "wall"}]})
    model.state_dict()["decode_head.conv_seg.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"conv_seg\.bias has numbers that are not finite"):
        model.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match="config or options beside a FrameSegmentor"):
        save_pretrained(model, tmp_path / "a", options={"model.decode_head.channels": 8})
    model.cfg = Config({"seed": 1})
    with pytest.raises(ConfigError, match="model is missing"):
        model.save_pretrained(tmp_path / "a")
    model.cfg = None
    with pytest.raises(ConfigError, match="FrameSegmentor without its config"):
        model.save_pretrained(tmp_path / "a")
    torch.save({"state_dict": torch.load(checkpoint)["state_dict"]}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="carries no config"):
        save_pretrained(tmp_path / "bare.pth", tmp_path / "a")
    assert names_in(tmp_path) == ["bare.pth"]


def test_a_repository(checkpoint, shared, hub, call, tmp_path, monkeypatch):  # noqa: F811
    """Up and down again, with the real library and a Hub of this machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"user/toy: no such folder on this machine; .*no such repository"):
        from_pretrained("user/toy")
    call("publish_model.py", checkpoint, "hf://user/toy", "--license", "mit", "--name", "Toy")
    assert sorted(hub.repositories["user/toy"]) == FILES
    hub.repositories["user/toy"]["README.md"] = b"edited"
    assert push_to_hub(from_pretrained(shared), "user/toy").endswith("/user/toy")
    assert hub.repositories["user/toy"]["README.md"] == b"edited"
    with pytest.raises(CheckpointError, match="@old: no such revision"):
        from_pretrained("user/toy", revision="old")
    hub.repositories["user/part"] = {"config.json": (shared / "config.json").read_bytes()}
    with pytest.raises(CheckpointError, match=r"hf://user/part: there is no model\.safetensors"):
        from_pretrained("user/part")
    hub.repositories["user/bert"] = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"}
    for open_it in (from_pretrained, lambda name: init_segmentor(checkpoint=name)):
        with pytest.raises(CheckpointError, match=r"hf://user/bert/config\.json: not written by .*model_type 'bert'"):
            open_it("hf://user/bert")
    fetched = [line for line in hub.log if "user/bert/resolve" in line]
    assert fetched and not any("safetensors" in line for line in fetched)  # large files are not waited for
    opened, given = from_pretrained("user/toy"), from_pretrained(shared)
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in given.state_dict().items())
    video = shared.parent / "data" / "data" / "a" / "origin"
    call("infer.py", video, "hf://user/toy", "--out", "seen", "--save", "labels", "--device", "cpu")
    assert len(list((tmp_path / "seen" / "origin" / "labels").iterdir())) == 4
    use_hub(monkeypatch, hub.address, tmp_path / "cache", token=None)
    with pytest.raises(WriteError, match="user/toy: may not be written"):
        push_to_hub(given, "user/toy")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # no network: what was downloaded is there
    assert from_pretrained("hf://user/toy").num_classes == 3
    with pytest.raises(CheckpointError, match="cannot be reached, and it was not downloaded before"):
        from_pretrained("user/other")
    with pytest.raises(WriteError, match="the Hub cannot be reached"):
        push_to_hub(given, "user/toy")
    assert sorted(os.listdir(tmp_path)) == ["cache", "seen"]


def test_names_that_cannot_be(shared, monkeypatch):
    for name in ("no/such/folder", "nothing", "a\0b", "../x", "x" * 300, "work_dirs/typed_wrong.pth", "a/b.", "a/b\n"):
        with pytest.raises(CheckpointError, match=r"^[^ ]*: (no such file|no file name|cannot be read .File name too)"):
            from_pretrained(name)
    for name in ("hf://user/toy@", "hf://user/toy@../../x", "hf://user/toy@a b"):
        with pytest.raises(ConfigError, match="as a revision of hf://user/toy"):
            from_pretrained(name)
    with pytest.raises(ConfigError, match="one revision"):
        from_pretrained("hf://user/toy@main", revision="old")
    with pytest.raises(ConfigError, match="which is on this machine"):
        from_pretrained(shared, revision="old")
    for name in ("hf://user", "hf://a b/c", "hf://a/b/c", "hf://../x", "hf://a/b.git"):
        with pytest.raises(ConfigError, match="as the name of a repository of the Hub"):
            from_pretrained(name)
    with pytest.raises(ConfigError, match="a repository without @"):
        push_to_hub(shared, "hf://user/toy@main")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(ConfigError, match="without huggingface_hub") as refused:
        from_pretrained("user/toy")
    assert "pip install huggingface_hub" in refused.value.action
