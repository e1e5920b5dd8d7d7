"""Exports of every system: a runner without PyTorch gives the numbers of the stream, frame by frame."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmseg.apis.exports import BACKENDS
from mmseg.errors import CheckpointError, ConfigError, DataError, WriteError
from mmseg.exporting.export_folder import export_model, new_folder
from mmseg.exporting.exported_model import ExportedModel
from mmseg.exporting.onnx_graphs import check_graph, export_graph
from mmseg.exporting.onnx_runner import Runner
from mmseg.exporting.runner_prototypes import kmeans
from mmseg.folder_lock import FolderLock
from mmseg.models.exportable import Part
from tests.contract.shallow import shallow
from tests.contract.systems import SYSTEMS
from tests.exporting.small_encoder import with_small_encoder
from tests.tools.processes import patience

EXPORTED = {  # that of SegFormer holds a MiT
    system.name: shallow(system) if system.name == "SegFormer" else with_small_encoder(shallow(system))
    for system in SYSTEMS
    if system.name in ("SegFormer", "CFFM", "CFFM++", "MRCFA", "HFAN")
}
WITH_OPENVINO = ("CFFM",)  # one will do: the graphs are the same
FRAMES = 20
RUN = """
import sys
sys.path.insert(0, ".")
import numpy as np
from onnx_runner import Runner

inputs = np.load("inputs.npz")
runner = Runner(".", prototypes=inputs.get("prototypes"))
answers = [values for frame in inputs["frames"] for values in runner.push(frame)] + runner.finish()
assert [number for number, _ in answers] == list(range(len(inputs["frames"])))
np.save("found.npy", np.stack([values for _, values in answers]))
assert not {"torch", "mmseg", "onnx", "cv2"} & {name.partition(".")[0] for name in sys.modules}
"""


def run_alone(folder: Path, **inputs: torch.Tensor) -> torch.Tensor:
    """The values (n, K, h, w) that the runner of an export gives in a process of its own."""
    np.savez(folder / "inputs.npz", **{name: value.numpy() for name, value in inputs.items()})
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, timeout=patience(100)
    )
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "found.npy"))


def with_openvino(folder: Path, frames: torch.Tensor, given: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same from OpenVINO in this process; nothing, with a warning, where it is missing."""
    if importlib.util.find_spec("openvino") is None:
        warnings.warn("OpenVINO is not compared: pip install -e .[openvino]", stacklevel=1)
        return
    runner = Runner(folder, BACKENDS["openvino"], **{name: value.numpy() for name, value in given.items()})
    runner.step(frames[-1].numpy())
    runner.reset()  # nothing of that video is left
    yield torch.from_numpy(np.stack([runner.step(frame.numpy()) for frame in frames]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """The model of a system and its export, which is made once."""

    @cache
    def make(name: str) -> tuple[nn.Module, Path]:
        system, out = EXPORTED[name], tmp_path_factory.mktemp("export") / "out"
        export_model(model := system.model(), system.size, out, settings=system.settings(), batch=False)
        return model, out

    return make


@pytest.mark.parametrize("name", EXPORTED)
def test_the_runner_gives_what_the_stream_gives(exported: Callable, name: str):
    system, (model, out) = EXPORTED[name], exported(name)
    frames, settings = system.video(FRAMES), system.settings()
    stream = system.stream(model)
    expected = torch.stack([stream.step(frame) for frame in frames])
    given = {name: value[0] for name, value in settings.items() if name == "prototypes"}
    answers = [run_alone(out, frames=frames, **given)]
    if name in WITH_OPENVINO:
        answers += with_openvino(out, frames, given)
    for found in answers:
        found = F.interpolate(found, size=system.size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


class Video:
    """A video that is at hand as a whole."""

    name, num_frames = "some video", FRAMES

    def __init__(self, frames: torch.Tensor) -> None:
        self.network_input = frames.__getitem__


@pytest.mark.parametrize("whole", [False, True])
def test_prototypes_are_made_of_the_video(exported: Callable, monkeypatch: pytest.MonkeyPatch, whole: bool):
    """Of one cluster there is one solution, whatever the random numbers are: the mean of the rows."""
    model, out = exported("CFFM++")
    frames, alone = EXPORTED["CFFM++"].video(FRAMES), ExportedModel(out)
    monkeypatch.setattr(model.decode_head, "n_clusters", 1)
    monkeypatch.setattr(model.decode_head, "prototypes", "auto")
    dilation = (-5, -4, -2)  # frame 5 is the first that looks at prototypes: of six frames, no power of two
    alone.runner.policy = model.export_parts(EXPORTED["CFFM++"].size, dilation=dilation).policy
    video = Video(frames) if whole else "a live video"
    ours, theirs = model.stream(video, dilation=dilation), alone.stream(video)
    for frame in frames[:6]:
        torch.testing.assert_close(theirs.step(frame), ours.step(frame), rtol=0, atol=1e-4)
    made, runner = ours._context["prototypes"], theirs.runner
    expected, found = (made[0], runner.prototypes) if whole else (made.centers(), runner.live.centers())
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_clusters_are_found():
    """Rows around three centres that are far from each other."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float32), 20, 0) + rng.normal(0, 0.1, (60, 2))
    tries = [kmeans(rows, 3, np.random.default_rng(seed)) for seed in range(8)]  # some end in a local optimum
    found = min(tries, key=lambda centers: ((rows[:, None] - centers) ** 2).sum(2).min(1).sum())
    expected = rows.reshape(3, 20, 2).mean(1)
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), atol=1e-5)


def test_a_folder_is_whole_or_not_there(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "decode.onnx").write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (out.parent / ".out.unfinished" / "of a run").mkdir(parents=True)  # that was killed
    (out.parent / ".out.unfinished" / "decode.onnx").touch()
    with new_folder(out) as folder:
        assert [path.name for path in folder.iterdir()] == [".lock"]
        (folder / "decode.onnx").write_bytes(b"whole")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["decode.onnx"] and len(list(out.parent.iterdir())) == 1
    with pytest.raises(ConfigError, match="exists"), new_folder(out):
        pass
    other = out.with_name("other")
    with FolderLock(other.with_name(".other.unfinished"), "an export"), pytest.raises(WriteError), new_folder(other):
        pass


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path):
    systems = {system.name: shallow(system) for system in SYSTEMS}
    cases = [
        (systems["MRCFA"].model(), (36, 36), {}, DataError, "MRCFA cannot use"),
        (systems["SegFormer"].model(), (16, 16), {}, DataError, "at least 29 pixels"),
        (systems["SegFormer"].model("train"), (64, 96), {}, ConfigError, "training mode"),
        (systems["CFFM"].model(), (64, 96), {"dilation": (-2, -1)}, ConfigError, "num_clips"),
    ]
    for model, size, settings, kind, words in cases:
        with pytest.raises(kind, match=words):
            export_model(model, size, tmp_path / "out", settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_other_numbers_are_refused():
    inputs = {"x": torch.ones(1, 1, 20, 20)}
    part, other = (Part(nn.Conv2d(1, 1, 1), inputs, ("y",)) for _ in range(2))
    graph = export_graph(part)
    assert graph.difference < 1e-6
    with pytest.raises(ConfigError, match=r"y: \d+\.\d\d% of onnxruntime's numbers are not PyTorch's, by up to \d"):
        check_graph(graph.data, other)


def test_graphs_of_another_export_are_told(exported: Callable, tmp_path: Path):
    model, out = exported("SegFormer")
    stream, frame = ExportedModel(out).stream(), SYSTEMS[0].video(1)[0]
    torch.testing.assert_close(stream.step(frame), model.stream().step(frame), rtol=0, atol=1e-4)
    with pytest.raises(DataError, match="export again"):
        ExportedModel(out).stream().step(frame[:, 8:])
    runner, frame = Runner(out), frame.numpy()
    for wrong in (frame[:, 8:], frame[None], frame.astype(np.uint8), frame.transpose(1, 2, 0)):
        with pytest.raises(ValueError, match=r"an input of \(.*\) \w+ for graphs of \(3, 64, 96\) float32"):
            runner.step(wrong)
    description = json.loads((out / "model.json").read_text())
    for name, text, words in [
        ("model.json", b'{"format": 999}', "format 999"),
        ("model.json", b"{}", "format None"),
        ("model.json", b"[]", "format None"),
        ("decode.onnx", b"other", "is not the file that model.json speaks of"),
        ("decode.onnx", None, "decode.onnx"),
        ("model.json", b"{", "model"),
        ("model.json", json.dumps({**description, "policy": {}}).encode(), "model.json lacks 'kind'"),
        (
            "model.json",
            json.dumps({**description, "input": {"size": [64, 96]}}).encode(),
            "model.json lacks 'channels'",
        ),
    ]:
        shutil.copytree(out, broken := tmp_path / "broken")
        (broken / name).unlink()
        if text is not None:
            (broken / name).write_bytes(text)
        with pytest.raises(CheckpointError, match=words):
            ExportedModel(broken)
        shutil.rmtree(broken)
