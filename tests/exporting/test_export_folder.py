"""Exports of every system: a runner without PyTorch gives the numbers of the stream, frame by frame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmseg.exporting.export_folder import export_model
from tests.contract.systems import SYSTEMS, System
from tests.contract.test_compiled_parts import shallow
from tests.tools.processes import patience

EXPORTED = ("SegFormer", "CFFM", "MRCFA", "HFAN")
FRAMES = 20
RUN = """
import sys
sys.path.insert(0, ".")
import numpy as np
from onnx_runner import Runner

runner, frames = Runner("."), np.load("frames.npy")
answers = [values for frame in frames for values in runner.push(frame)] + runner.finish()
assert [number for number, _ in answers] == list(range(len(frames)))
np.save("found.npy", np.stack([values for _, values in answers]))
assert not {"torch", "mmseg"} & {name.partition(".")[0] for name in sys.modules}
"""


def run_alone(folder: Path, frames: torch.Tensor) -> torch.Tensor:
    """The values (n, K, h, w) that the runner of an export gives in a process of its own."""
    np.save(folder / "frames.npy", frames.numpy())
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, timeout=patience(100)
    )
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "found.npy"))


@pytest.mark.parametrize("system", [pytest.param(s, id=s.name) for s in SYSTEMS if s.name in EXPORTED])
def test_the_runner_gives_what_the_stream_gives(system: System, tmp_path: Path):
    system = shallow(system)
    model, frames = system.model(), system.video(FRAMES)
    stream = system.stream(model)
    expected = torch.stack([stream.step(frame) for frame in frames])
    export_model(model, system.size, tmp_path / "out", settings=system.settings(), dynamic=False)
    found = run_alone(tmp_path / "out", frames)
    found = F.interpolate(found, size=system.size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
