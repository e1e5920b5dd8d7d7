"""The arguments of ``tools/infer.py`` and its page, docs/inference.md."""

import importlib
import json
import re

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg.apis.infer_arguments import make_parser, parse_args
from mmseg.apis.infer_command import _settings, infer_videos, options_of, palette_of
from mmseg.apis.segmentation import KINDS, SegmentOptions
from mmseg.errors import ConfigError, DataError
from tests.tools.processes import ROOT

PAGE = (ROOT / "docs/inference.md").read_text()


def test_the_page_names_all_flags_and_no_others():
    known = {name for action in make_parser()._actions for name in action.option_strings if name.startswith("--")}
    hidden = {"--help", "--out", "--input", "--local_rank", "--local-rank", "--cfg-options"}
    told = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert known - hidden <= told and told <= known
    assert set(KINDS) == set(re.findall(r"^\| `(\w+)`", PAGE.partition("What is written")[2].partition("## ")[0], re.M))


@pytest.mark.parametrize(
    ("line", "videos", "config", "checkpoint"),
    [
        ("a.mp4 m.pth", ["a.mp4"], None, "m.pth"),
        ("a.mp4 c.py m.pth --legend", ["a.mp4"], "c.py", "m.pth"),
        ("a.mp4 --legend b.mp4 c.py none", ["a.mp4", "b.mp4"], "c.py", "none"),
        ("m.pth --input a.mp4 b.mp4", ["a.mp4", "b.mp4"], None, "m.pth"),
        ("c.py m.pth --input a.mp4", ["a.mp4"], "c.py", "m.pth"),
        ("--input a.mp4 b.mp4 c.py m.pth", ["a.mp4", "b.mp4"], "c.py", "m.pth"),
        ("rtsp://host//stream weights", ["rtsp://host//stream"], None, "weights"),
    ],
)
def test_which_files_are_videos(line, videos, config, checkpoint):
    args = parse_args([*line.split(), "--out", "o"])
    assert (args.videos, args.config, args.checkpoint) == (videos, config, checkpoint)


@pytest.mark.parametrize(("video", "out"), [("frames", "frames"), ("frames/dog", "frames/dog/..")])
def test_results_do_not_stand_among_the_frames(tmp_path, monkeypatch, video, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames/dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("frames/dog/0.jpg")
    with pytest.raises(ConfigError, match="among its own frames"):
        infer_videos(parse_args([video, "none", "--out", out, "--device", "cpu"]))


def test_what_is_given_twice_means_all_of_it(capsys):
    args = parse_args("m.pth --input a.mp4 --save labels,video --input b.mp4 --save json --out o".split())
    assert args.videos == ["a.mp4", "b.mp4"] and args.kinds == ["labels", "video", "json"]
    with pytest.raises(SystemExit):
        parse_args(["a.mp4", "m.pth", "--out", "o", "--save", ", "])
    assert "--save ', ' names nothing" in capsys.readouterr().err


def test_palettes(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([[1, 2, 3], [4, 5, 6]]))
    assert palette_of(str(tmp_path / "p.json")) == [[1, 2, 3], [4, 5, 6]]
    image = Image.new("P", (2, 2))
    image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "p.png")
    assert palette_of(str(tmp_path / "p.png"))[:2] == [[9, 8, 7]] * 2
    assert palette_of("davis")[:2] == [[0, 0, 0], [128, 0, 0]] and palette_of("distinct")[0] != [0, 0, 0]
    for text in ("[]", "[[1, 2]]", "[[1, 2, 256]]", "{}", "[1, 2, 3]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="no colours"):
            palette_of(str(tmp_path / "bad.json"))
    with pytest.raises(ConfigError, match="distinct, davis, or a file"):
        palette_of("vivid")


def test_files_count_by_what_is_in_them(tmp_path):
    def settings(palette: str, weights: str = "w.pth") -> dict:
        line = f"a.mp4 none --out o --palette {palette} --flow-weights {tmp_path / weights}"
        return _settings(parse_args(line.split()), Config({"model": {}}), SegmentOptions())

    for name, content in (("a.json", "[[1, 2, 3]]"), ("b.json", "[[1, 2, 3]]"), ("w.pth", "1"), ("v.pth", "2")):
        (tmp_path / name).write_text(content)
    before = settings(tmp_path / "a.json")
    assert before == settings(tmp_path / "b.json") and json.dumps(before)
    (tmp_path / "a.json").write_text("[[1, 2, 4]]")
    assert {name for name, value in settings(tmp_path / "a.json").items() if value != before[name]} == {"palette"}
    assert settings(tmp_path / "b.json", "v.pth")["flow_weights"] != before["flow_weights"]
    assert settings("davis")["palette"] == "davis"


def test_what_runs_the_graphs_counts(tmp_path):
    """Of an export; a checkpoint knows PyTorch alone."""

    def backend(checkpoint: object, *flags: str) -> str | None:
        args = parse_args(["a.mp4", str(checkpoint), "--out", "o", *flags])
        return _settings(args, Config({}), SegmentOptions())["backend"]

    (tmp_path / "model.json").touch()
    assert backend(tmp_path) == backend(tmp_path, "--backend", "onnx") == "onnx"
    assert backend(tmp_path, "--backend", "openvino") == "openvino"
    assert backend("none") is backend("none", "--backend", "pytorch") is None


def test_graphs_of_an_export_know_their_type(tmp_path):
    """Mixed precision around them is an error."""
    (tmp_path / "model.json").touch()
    flags = ["--out", "o", "--amp", "bfloat16"]
    assert options_of(parse_args(["a.mp4", str(tmp_path), "--backend", "openvino", *flags])).amp is None
    assert options_of(parse_args(["a.mp4", "none", *flags])).amp is torch.bfloat16


def test_the_console_command_is_there():
    module, name = re.search(r'mmseg-infer = "([\w.]+):(\w+)"', (ROOT / "pyproject.toml").read_text()).groups()
    assert callable(getattr(importlib.import_module(module), name))
