"""The quickstart as a user starts it, with little data, twice: the second call has nothing left to do."""

import json
import subprocess
import sys

import pytest

from tests.tools.processes import ROOT, environment, patience


def quickstart(*arguments: str, status: int = 0) -> str:
    # sys.prefix is the environment that runs the tests: the script is to take it instead of making one
    env = {**environment(), "VIRTUAL_ENV": sys.prefix}
    command = [str(ROOT / "tools" / "quickstart.sh"), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=patience(170))
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_quickstart_goes_from_nothing_to_pictures_and_can_be_repeated(tmp_path):
    out = tmp_path / "quick start"
    first = quickstart("--small", "--out", str(out), "--iters", "3", "--gpus", "0")
    assert "untrained" in first and "weighted IoU" in first
    for name in ("res.pkl", "show/contact_sheet.png", "show/val_000.mp4", "train/latest.pth", "toy/train.txt"):
        assert (out / name).stat().st_size > 0, name
    assert len(list((out / "result_submission").glob("*/*.png"))) == 18
    report = json.loads((out / "res.json").read_text())
    assert 0 <= report["mIoU"] <= 1 and len(report["per_class"]) == 8
    made = [out / "train" / "iter_3.pth", out / "res.json"]
    before = [path.stat().st_mtime_ns for path in made]
    second = quickstart("--small", "--out", str(out), "--iters", "3", "--gpus", "0")
    assert second.splitlines()[-8:] == first.splitlines()[-8:]
    assert [path.stat().st_mtime_ns for path in made] == before and "tested already" in second


def test_quickstart_explains_itself():
    assert "--fresh" in quickstart("--help")
    quickstart("--frsh", status=2)
