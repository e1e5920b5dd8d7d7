"""Checkpoints that survive crashes, and files that must not be loaded."""

import os
import pathlib
import pickle
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from mmseg.engine import checkpoints as ckpt
from mmseg.errors import CheckpointError, WriteError
from mmseg.files import sweep
from mmseg.weights import load_checkpoint, read_checkpoint

ROOT = pathlib.Path(__file__).parents[2]


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def checkpoint_of(model: nn.Module, done: int = 7) -> dict:
    return {"meta": {**ckpt.own_meta(), "iter": done}, "state_dict": model.state_dict()}


def run_python(code: str, *args: object) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "iter_7.pth"
    ckpt.save_checkpoint(path, checkpoint_of(small_model(0)))
    model = small_model(1)
    loaded = load_checkpoint(model, path, strict=True)
    assert ckpt.finished_iterations(loaded, path) == 7
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), small_model(0).state_dict().values()))
    assert [p.name for p in path.parent.iterdir()] == ["iter_7.pth"]


def test_usual_file_mode(tmp_path):
    before = os.umask(0o027)
    try:
        ckpt.save_checkpoint(tmp_path / "a.pth", checkpoint_of(small_model()))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.pth").stat().st_mode) == 0o640


def test_latest_is_a_relative_link_that_moves(tmp_path):
    for done in (2, 4):
        ckpt.save_checkpoint(tmp_path / f"iter_{done}.pth", checkpoint_of(small_model(), done))
        ckpt.point_latest(tmp_path / f"iter_{done}.pth")
    assert os.readlink(tmp_path / "latest.pth") == "iter_4.pth"
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert read_checkpoint(moved / "latest.pth")["meta"]["iter"] == 4


def test_latest_replaces_a_copy(tmp_path):
    ckpt.save_checkpoint(tmp_path / "latest.pth", checkpoint_of(small_model(), 1))
    ckpt.save_checkpoint(tmp_path / "iter_2.pth", checkpoint_of(small_model(), 2))
    ckpt.point_latest(tmp_path / "iter_2.pth")
    assert read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"] == 2


def test_prune_keeps_the_newest_by_number_and_what_latest_leads_to(tmp_path):
    for done in (5, 10, 100, 20):
        (tmp_path / f"iter_{done}.pth").touch()
    (tmp_path / "best_mIoU_iter_5.pth").touch()
    ckpt.point_latest(tmp_path / "iter_5.pth")
    ckpt.prune(tmp_path, 2)
    assert [p.name for p in ckpt.iteration_checkpoints(tmp_path)] == ["iter_5.pth", "iter_20.pth", "iter_100.pth"]
    assert (tmp_path / "best_mIoU_iter_5.pth").exists()
    ckpt.prune(tmp_path, 0)
    assert len(ckpt.iteration_checkpoints(tmp_path)) == 3


def test_find_latest_without_a_link(tmp_path):
    assert ckpt.find_latest(tmp_path) is None
    for done in (9, 10):
        (tmp_path / f"iter_{done}.pth").touch()
    (tmp_path / "latest.pth").symlink_to("iter_11.pth")  # its target was removed by hand
    assert ckpt.find_latest(tmp_path) == tmp_path / "iter_10.pth"


FILL_UP = """
import resource, sys, torch
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.errors import WriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    save_checkpoint(sys.argv[1], {"state_dict": {"a": torch.zeros(int(sys.argv[2]))}})
except WriteError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "iter_7.pth"
    ckpt.save_checkpoint(path, checkpoint_of(small_model()))
    before = path.read_bytes()
    for numbers in (200_000, 5_000_000):  # of 4 bytes each: more than the limit, more than one write
        process = run_python(FILL_UP, path, numbers)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "cannot be written" in out and "earlier checkpoints are intact" in out
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["iter_7.pth"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        ckpt.save_checkpoint(tmp_path / "file" / "iter_1.pth", {})


SAVE_FOREVER = """
import sys, itertools, pathlib, torch
from mmseg.engine import checkpoints as ckpt
from mmseg.files import sweep
from mmseg.weights import read_checkpoint
folder = pathlib.Path(sys.argv[1])
sweep(folder)
last = ckpt.find_latest(folder)
start = read_checkpoint(last)["meta"]["iter"] if last else 0
for done in itertools.count(start + 1):
    weights = torch.full((500_000,), float(done))
    meta = {**ckpt.own_meta(), "iter": done}
    ckpt.save_checkpoint(folder / f"iter_{done}.pth", {"meta": meta, "state_dict": {"a": weights}})
    ckpt.point_latest(folder / f"iter_{done}.pth")
    ckpt.prune(folder, 2)
    print(done, flush=True)
"""


def test_kill_at_any_moment_leaves_a_complete_latest(tmp_path):
    reached = 0
    for delay in (0.0, 0.004, 0.011, 0.017):
        process = run_python(SAVE_FOREVER, tmp_path)
        for _ in range(3):
            reported = int(process.stdout.readline())
        time.sleep(delay)
        process.kill()
        process.communicate()
        content = read_checkpoint(tmp_path / "latest.pth")
        done = content["meta"]["iter"]
        assert done >= reported > reached
        assert torch.equal(content["state_dict"]["a"], torch.full((500_000,), float(done)))
        reached = reported
    sweep(tmp_path)
    assert all(p.name == "latest.pth" or p.name.startswith("iter_") for p in tmp_path.iterdir())


def test_sweep_removes_only_unfinished_files(tmp_path):
    (tmp_path / ".iter_3.pth.0123abcd.writing").touch()
    (tmp_path / "iter_2.pth").touch()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["iter_2.pth"]


def test_truncated_file(tmp_path):
    path = tmp_path / "iter_1.pth"
    ckpt.save_checkpoint(path, checkpoint_of(small_model()))
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"iter_1\.pth"):
            load_checkpoint(small_model(), path)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(small_model(), tmp_path / "none.pth")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, target: pathlib.Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, how):
    path, target = tmp_path / "evil.pth", tmp_path / "proof"
    content = {"state_dict": small_model().state_dict(), "extra": Evil(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_checkpoint(small_model(), path)
    assert not target.exists()


def test_other_model_names_the_first_differences(tmp_path):
    path = tmp_path / "other.pth"
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save({"state_dict": {**model.state_dict(), "2.weight": torch.zeros(9, 4)}}, path)
    with pytest.raises(CheckpointError, match=r"2\.weight is \[9, 4\] in the file and \[2, 4\] in the model"):
        load_checkpoint(model, path)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in small_model(1).state_dict().items()}}, path)
    with pytest.raises(CheckpointError, match=r"missing in the file: 0\.weight.*not in the model: backbone\.0\.weight"):
        load_checkpoint(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_left_over_and_missing_names_are_a_warning_unless_strict(tmp_path, caplog):
    path = tmp_path / "part.pth"
    state = small_model(1).state_dict()
    del state["2.bias"]
    torch.save({"state_dict": {**state, "aux.weight": torch.zeros(1)}}, path)
    model = small_model()
    load_checkpoint(model, path)
    assert torch.equal(model[0].weight, small_model(1)[0].weight)
    assert "not in the file: 2.bias" in caplog.text and "not in the model: aux.weight" in caplog.text
    with pytest.raises(CheckpointError, match=r"missing in the file: 2\.bias; not in the model: aux\.weight"):
        load_checkpoint(model, path, strict=True)


@pytest.mark.parametrize("layout", ["state_dict", "model", "plain", "module."])
def test_layouts(tmp_path, layout):
    path = tmp_path / "weights.pth"
    state = small_model(1).state_dict()
    if layout == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save(state if layout == "plain" else {"model" if layout == "model" else "state_dict": state}, path)
    model = small_model()
    load_checkpoint(model, path, strict=True)
    assert torch.equal(model[2].weight, small_model(1)[2].weight)


def test_file_without_weights(tmp_path):
    path = tmp_path / "list.pth"
    for content in ([1, 2], {"a": 1}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="no weights in it"):
            load_checkpoint(small_model(), path)


@pytest.mark.parametrize("zipped", [True, False])
def test_official_files_count_from_zero_and_may_hold_numpy_values(tmp_path, zipped):
    path = tmp_path / "iter_10.pth"
    meta = {"iter": 9, "epoch": 1, "mmseg_version": "0.13.0+0123456", "CLASSES": ("a", "b"), "lr": np.float64(0.1)}
    torch.save(
        {"meta": {**meta, "PALETTE": np.zeros((2, 3), np.uint8)}, "state_dict": small_model().state_dict()},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert ckpt.finished_iterations(read_checkpoint(path), path) == 10


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(small_model().state_dict(), path)
    with pytest.raises(CheckpointError, match="--load-from"):
        ckpt.finished_iterations(read_checkpoint(path), path)
