"""Exports of THE-Mask, whose results come late, and of GSFM, which follows objects: the runner and the stream agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmseg.errors import DataError
from mmseg.exporting.export_folder import export_model
from mmseg.exporting.exported_model import ExportedModel
from mmseg.exporting.onnx_runner import Runner
from mmseg.models.exportable import ExportParts
from mmseg.structures import View
from tests.contract.shallow import shallow
from tests.contract.systems import SYSTEMS, System, themask, video
from tests.exporting.small_encoder import with_small_encoder
from tests.tools.processes import patience

FRAMES = 20  # of THE-Mask
FRAMES_OF_GSFM = 14
SIZE = (30, 44)  # of the frames of GSFM, which is padded
GIVEN = {2: (1, 2), 5: (3,), 8: (), 12: (2, 4)}  # frame -> objects that a mask speaks about
RUN = """
import sys
sys.path.insert(0, ".")
import numpy as np
from onnx_runner import Runner

inputs = np.load("inputs.npz")
runner, found = Runner("."), []
for t, frame in enumerate(inputs["frames"]):
    given = {"given": inputs[f"given_{t}"], "objects": inputs[f"objects_{t}"]} if f"given_{t}" in inputs else {}
    found += runner.push(frame, **given)
found += runner.finish()
assert [number for number, _ in found] == list(range(len(inputs["frames"])))
np.savez("found.npz", **{str(number): values for number, values in found if values is not None})
assert not {"torch", "mmseg"} & {name.partition(".")[0] for name in sys.modules}
"""


def run_alone(folder: Path, **inputs: np.ndarray) -> dict[int, Tensor]:
    """The values that the runner of an export gives in a process of its own, by frame."""
    np.savez(folder / "inputs.npz", **inputs)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, timeout=patience(100)
    )
    assert done.returncode == 0, done.stderr
    return {int(number): torch.from_numpy(values) for number, values in np.load(folder / "found.npz").items()}


def agree(found: dict[int, Tensor], expected: dict[int, Tensor | None]) -> None:
    """Raise AssertionError unless the values are the same to 1e-4."""
    assert sorted(found) == [number for number, values in expected.items() if values is not None]
    for number, values in found.items():
        torch.testing.assert_close(values, expected[number], rtol=0, atol=1e-4)


class RunnerOfParts(Runner):
    """The runner with the parts of a model in PyTorch in the place of its graphs: the policy alone is looked at."""

    def __init__(self, exported: ExportParts) -> None:
        self.policy, self.parts = dict(exported.policy), exported.parts
        self.graphs = {name: {"inputs": part.inputs, "outputs": part.outputs} for name, part in self.parts.items()}
        self.runs = {name: partial(self._run_part, name) for name in self.parts}
        _, channels, *size = self.parts["embed"].inputs["img"].shape
        self.about = {"input": {"channels": channels, "size": size}}
        self.reset()

    def _run_part(self, name: str, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        part = self.parts[name]
        values = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in inputs.items()}
        found = replace(part, inputs={key: values[key] for key in part.inputs}).example()
        return [found[key].numpy() for key in outputs]


def few_layers(name: str, num_frames: int) -> System:
    """One of THE-Mask's models, with fewer layers still."""
    system = System("THE-Mask", ("themask", name), lambda: themask(name, num_frames), filler=SYSTEMS[-2].filler)
    return with_small_encoder(shallow(system))


def scores_of(model: nn.Module, frames: Tensor, size: int) -> dict[int, Tensor]:
    """Those of the stream, by frame."""
    stream = model.stream(test_size=size)
    scores = [s for t, frame in enumerate(frames) for s in stream.push(View(t, {"img": frame}))]
    return {s.number: s.values for s in [*scores, *stream.finish()]}


def test_blocks_of_graphs(tmp_path: Path):
    """20 frames are three blocks of 6 and two more frames."""
    system, frames = few_layers("video_b1_eval_t1", 2), video(FRAMES)
    model = system.model()
    export_model(model, system.size, tmp_path / "out", settings={"test_size": 2}, batch=False)
    agree(run_alone(tmp_path / "out", frames=frames.numpy()), scores_of(model, frames, 2))
    with pytest.raises(ValueError, match="come late"):
        Runner(tmp_path / "out").step(frames[0].numpy())


@pytest.mark.parametrize(("name", "clip", "size"), [("1f_b1_eval_t1", 1, 1), ("video_b1_eval_t1", 2, 4)])
def test_other_blocks(name: str, clip: int, size: int):
    """20 frames are one block of 12, and eight more; or 20 of one."""
    system, frames = few_layers(name, clip), video(FRAMES)
    model = system.model()
    runner = RunnerOfParts(model.export_parts(system.size, test_size=size))
    answers = [answer for frame in frames.numpy() for answer in runner.push(frame)] + runner.finish()
    assert [number for number, _ in answers] == list(range(FRAMES))
    agree({number: torch.from_numpy(values) for number, values in answers}, scores_of(model, frames, size))


# ------------------------------------------------------------------ GSFM


@cache
def gsfm() -> nn.Module:
    """The model with one block per stage of its encoders."""
    return shallow(SYSTEMS[-1]).model()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of :func:`gsfm`; reading 20 positions, more than three frames have."""
    out = tmp_path_factory.mktemp("gsfm") / "out"
    export_model(gsfm(), SIZE, out, settings={"top_k": 20, "mem_every": 3})
    return out


def views() -> Iterator[View]:
    """Frames of a video without and with masks: objects enter late, one is given a second time, one mask is empty."""
    generator = torch.Generator().manual_seed(3)
    for t, frame in enumerate(video(FRAMES_OF_GSFM, size=(32, 48))[:, :, 1:31, 2:46]):
        inputs = {"img": frame.contiguous()}
        if t in GIVEN:
            blocks = torch.randint(0, 6, (5, 11), generator=generator).repeat_interleave(6, 0).repeat_interleave(4, 1)
            inputs["given"] = torch.where(torch.isin(blocks, torch.tensor(GIVEN[t])), blocks, 0)
            inputs["objects"] = GIVEN[t]
        yield View(t, inputs)


def test_objects_that_enter_late(export: Path):
    stream = gsfm().stream(top_k=20, mem_every=3)
    expected = {view.number: scores.values for view in views() for scores in stream.push(view)}
    assert expected[1] is None and [len(expected[t]) for t in (2, 4, 5, 11, 12, 13)] == [3, 3, 4, 4, 5, 5]
    inputs = {"frames": np.stack([view.inputs["img"].numpy() for view in views()])}
    for view in views():
        if "given" in view.inputs:
            inputs[f"given_{view.number}"] = view.inputs["given"].numpy()
            inputs[f"objects_{view.number}"] = np.array(view.inputs["objects"], int)
    agree(run_alone(export, **inputs), expected)


@pytest.mark.parametrize(
    "settings",
    [{"mem_every": 1, "max_memory_frames": 3}, {"mem_every": 5, "include_last": True}, {"max_memory_frames": 1}],
)
def test_other_policies(settings: dict):
    """The frame and the results belong to the caller, who writes into them."""
    runner = RunnerOfParts(gsfm().export_parts(SIZE, top_k=20, **settings))
    stream = gsfm().stream(top_k=20, **settings)
    for view in list(views())[:12]:
        [expected] = stream.push(view)
        img = view.inputs.pop("img").numpy().copy()
        [(_, found)] = runner.push(img, **view.inputs)
        if expected.values is not None:
            torch.testing.assert_close(torch.from_numpy(found), expected.values, rtol=0, atol=1e-4)
            assert runner.ids == expected.ids
            found.fill(7)
        img.fill(7)


def test_an_export_in_the_place_of_the_model(export: Path):
    exported, stream = ExportedModel(export).stream(), gsfm().stream(top_k=20, mem_every=3)
    for view in list(views())[:6]:
        [expected], [found] = stream.push(view), exported.push(view)
        assert (found.ids, found.kind, exported.ids) == (expected.ids, expected.kind, stream.ids)
        if expected.values is not None:
            torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-4)
    with pytest.raises(DataError, match=r"frame 6: object ids \[300\]"):
        exported.push(View(6, {**view.inputs, "objects": (300,)}))


def test_lengths_have_names(export: Path):
    graphs = json.loads((export / "model.json").read_text())["graphs"]
    assert graphs["read"]["inputs"]["memory_values"] == ["frames", 6, "objects", 512]
    assert graphs["decode"]["outputs"] == {"probabilities": ["objects + 1", 32, 48]}


def test_masks_that_cannot_be_taken(export: Path):
    runner, frame, mask = Runner(export), np.zeros((3, *SIZE), np.float32), np.ones(SIZE, np.uint16)
    with pytest.raises(ValueError, match="frame 0: nothing is followed yet: give a mask"):
        runner.step(frame)
    for given, objects, words in [
        (mask[1:], None, r"a mask \(29, 44\) for a frame \(30, 44\)"),
        (mask * 256, None, r"object ids \[256\], not 1 to 255"),
        (mask, [-1], r"object ids \[-1\]"),
        (mask.astype(np.float32), None, "whole numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            runner.step(frame, given=given, objects=objects)
    assert runner.step(frame, given=mask).shape == (2, *SIZE)
    assert runner.ids == (0, 1)
