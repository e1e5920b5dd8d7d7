"""What a test run leaves behind when it cannot go on: one message with the real reason, and nothing half-written."""

import json
import pickle
import signal
import sys

import cv2
import numpy as np
import pytest
import torch

from mmseg.apis.inference import init_segmentor
from mmseg.engine.checkpoints import save_checkpoint
from tests.engine.tiny_vspw import CLASSES, make_data, write_config
from tests.tools.forked import Forked
from tests.tools.processes import ROOT, environment, finish, finish_all, finish_two, launch, wait_until
from tests.writing.feeding import left_in

TEST = [sys.executable, str(ROOT / "tools" / "test.py")]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_data(folder / "data", {"a": 9, "b": 6, "c": 6})
    make_data(folder / "long", {f"v{i}": 25 for i in range(6)})
    torch.manual_seed(0)
    model = init_segmentor(write_config(folder / "cffm.py", folder / "data"))
    meta = {"CLASSES": list(CLASSES)}
    save_checkpoint(folder / "model.pth", {"meta": meta, "state_dict": model.state_dict()})
    return folder


def wait_for(pattern: str, folder, process: Forked) -> None:
    """Until a file is there."""
    wait_until(lambda: any(folder.glob(pattern)) or process.poll() is not None, 60)
    assert process.poll() is None, "".join(process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "signum"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_signal_leaves_nothing_half_written(work, tmp_path, processes, signum):
    command = ["cffm.py", "model.pth", "--options", "data.test.data_root=long", f"--out={tmp_path}/out/res.pkl"]
    command += ["--save-png", f"--show-dir={tmp_path}/out/show"]
    if processes == 2:
        started = launch(ROOT / "tools" / "test.py", *command, "--launcher=pytorch", cwd=work, merged=True)
    else:
        started = [Forked([*TEST, *command, "--device=cpu"], environment(), work, merged=True)]
    try:
        # a PNG of the second video of a process: at least one video is complete, and one is not
        wait_for("out/.result_submission.parts.*/v[2-5]/*1.png", tmp_path, started[0])
        assert list(tmp_path.glob("out/.res.pkl.*")) and list(tmp_path.glob("out/show/.v*.writing.mp4"))
    finally:
        for process in started:
            process.send_signal(signum)
        ended = finish_all(started)
    for status, output, _ in ended:
        assert status in (128 + signum, 130) and "Traceback" not in output, output
    left = left_in(tmp_path)
    assert left and all(name.startswith("out/show/v") and name.endswith(".mp4") for name in left)  # whole videos
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "show"]


@pytest.mark.parametrize(("processes", "kilobytes", "name"), [(0, 30, "res.pkl"), (2, 20, "")])
def test_a_full_disk(work, tmp_path, processes, kilobytes, name):
    command = ["cffm.py", "model.pth", "--out", tmp_path / "res.pkl", "--save-png"]
    if processes:
        output = finish_two("test.py", work, *command, status=2, largest_file=1024 * kilobytes)
    else:
        output = finish([*TEST, *command, "--device=cpu"], work, status=2, largest_file=1024 * kilobytes)
    assert f"{name}: cannot be written, the file is larger than allowed here" in output and "Traceback" not in output
    assert left_in(tmp_path) == []


def test_overlay_videos_that_do_not_fit(work, tmp_path):
    command = [*TEST, "cffm.py", "model.pth", "--out=None", "--show-dir", tmp_path / "show", "--device", "cpu"]
    output = finish(command, work, status=2, largest_file=3 * 1024)
    assert "a.mp4: cannot be written, the file is larger than allowed here" in output and "Traceback" not in output
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_two_tests_with_one_out_at_once(work, tmp_path):
    """Both succeed, and what stands there in the end is one's or the other's, as a whole."""
    (work / "data" / "one.txt").write_text("a\n")
    (work / "data" / "two.txt").write_text("b\nc\n")
    commands = [
        [*TEST, "cffm.py", "model.pth", f"--out={tmp_path}/res.pkl", "--save-png", "--device=cpu", "--options"]
        + [f"data.test.split={split}"]
        for split in ("one", "two")
    ]
    both = finish_all([Forked(command, environment(), work, merged=True) for command in commands])
    assert [status for status, *_ in both] == [0, 0], both
    videos = list(json.loads((tmp_path / "res.json").read_text())["per_video"])
    assert videos in (["a"], ["b", "c"])
    assert len(pickle.loads((tmp_path / "res.pkl").read_bytes())) == {1: 9, 2: 12}[len(videos)]
    assert {name.split("/")[0] for name in left_in(tmp_path)} == {"res.json", "res.pkl", "result_submission"}


def test_masks_without_labels_are_told_before_the_first_frame(work, tmp_path, call, monkeypatch):
    make_data(tmp_path / "data", {"void": 3})
    for mask in (tmp_path / "data" / "data" / "void" / "mask").iterdir():
        cv2.imwrite(str(mask), np.zeros((45, 70), np.uint8))
    monkeypatch.chdir(work)
    out, device, options = f"--out={tmp_path}/res.pkl", "--device=cpu", f"data.test.data_root={tmp_path}/data"
    output = call("test.py", "cffm.py", "model.pth", out, device, "--options", options, status=2)
    assert "no labelled pixel in 3 of 3 masks" in output and not (tmp_path / "res.pkl").exists()
