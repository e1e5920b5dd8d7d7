"""Checkpoints that survive crashes, and resuming from any file whatever."""

import copy
import os
import pathlib
import signal
import stat
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmseg.engine import checkpoints as ckpt
from mmseg.engine import resuming
from mmseg.errors import CheckpointError, SegError, WriteError
from mmseg.files import sweep
from mmseg.folder_lock import FolderLock
from mmseg.weights import load_checkpoint, read_checkpoint
from tests.engine.toy import batch_of
from tests.engine.toy_training import trainer
from tests.tools.processes import ROOT, finish


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def checkpoint_of(model: nn.Module, done: int = 7) -> dict:
    return {"meta": {**ckpt.own_meta(), "iter": done}, "state_dict": model.state_dict()}


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "iter_7.pth"
    ckpt.save_checkpoint(path, checkpoint_of(small_model(0)))
    model = small_model(1)
    loaded = load_checkpoint(model, path, strict=True)
    assert resuming.finished_iterations(loaded, path) == 7
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


def test_the_order_in_which_checkpoints_are_tried(tmp_path):
    """The one that latest.pth leads to first, then those before it, and those of an earlier run last."""
    assert ckpt.newest_first(tmp_path) == []
    for done in (9, 10, 8, 100):
        (tmp_path / f"iter_{done}.pth").touch()
    (tmp_path / "latest.pth").symlink_to("iter_11.pth")  # its target was removed by hand
    assert [path.stem for path in ckpt.newest_first(tmp_path)] == ["iter_100", "iter_10", "iter_9", "iter_8"]
    ckpt.point_latest(tmp_path / "iter_10.pth")
    assert [path.stem for path in ckpt.newest_first(tmp_path)] == ["latest", "iter_9", "iter_8", "iter_100"]


def test_the_newest_checkpoint_that_is_whole(tmp_path, caplog):
    """Cut off, and with a byte in the middle that the disk has lost, which PyTorch would read."""
    assert resuming.agree_on_newest(tmp_path) is None
    for done in (1, 2, 3):
        content = checkpoint_of(small_model(), done)
        content["meta"]["run"] = "this" if done > 1 else "earlier"
        content["state_dict"]["large"] = torch.ones(10_000)
        ckpt.save_checkpoint(tmp_path / f"iter_{done}.pth", content)
        ckpt.point_latest(tmp_path / f"iter_{done}.pth")
    assert resuming.agree_on_newest(tmp_path) == tmp_path / "latest.pth"
    assert resuming.agree_on_newest(tmp_path, "earlier") is None
    whole = (tmp_path / "iter_3.pth").read_bytes()
    (tmp_path / "iter_3.pth").write_bytes(whole[: len(whole) // 2])
    assert resuming.agree_on_newest(tmp_path, "this") == tmp_path / "iter_2.pth"
    assert "latest.pth" in caplog.text and "the checkpoint before it is tried" in caplog.text
    spoilt = bytearray((tmp_path / "iter_2.pth").read_bytes())
    spoilt[spoilt.index(torch.ones(100).numpy().tobytes()) + 200] ^= 1
    (tmp_path / "iter_2.pth").write_bytes(spoilt)
    read_checkpoint(tmp_path / "iter_2.pth")
    assert resuming.agree_on_newest(tmp_path) == tmp_path / "iter_1.pth"
    assert resuming.agree_on_newest(tmp_path, "this") is None
    (tmp_path / "iter_1.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"latest\.pth"):
        resuming.agree_on_newest(tmp_path)


FILL_UP = """
import resource, sys, torch
from mmseg.engine.checkpoints import point_latest, save_checkpoint
from mmseg.errors import WriteError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    save_checkpoint(sys.argv[1], {"state_dict": {"a": torch.zeros(200_000)}})
except WriteError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "iter_7.pth"
    ckpt.save_checkpoint(path, checkpoint_of(small_model()))
    before = path.read_bytes()
    out = finish([sys.executable, "-c", FILL_UP, path], ROOT)
    assert "cannot be written" in out and "max_keep_ckpts" in out and "earlier checkpoints are intact" in out
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["iter_7.pth"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        ckpt.save_checkpoint(tmp_path / "file" / "iter_1.pth", {})


def test_sweep_removes_only_unfinished_files(tmp_path):
    (tmp_path / ".iter_3.pth.0123abcd.writing").touch()
    (tmp_path / "iter_2.pth").touch()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["iter_2.pth"]


KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from mmseg.engine.checkpoints import point_latest
from mmseg.folder_lock import FolderLock
lock = FolderLock(os.path.dirname(sys.argv[1]), "a training")
sys.setprofile(lambda frame, event, what: event == "c_call" and what is os.replace and os.kill(os.getpid(), 9))
point_latest(sys.argv[1])
"""


def test_a_kill_between_making_the_link_and_renaming_it(tmp_path):
    """The next owner of the folder removes it at once; who is not sure to be alone leaves it for a minute."""
    (tmp_path / "iter_2.pth").touch()
    ckpt.point_latest(tmp_path / "iter_2.pth")
    finish([sys.executable, "-c", KILLED_BEFORE_THE_RENAME, tmp_path / "iter_4.pth"], ROOT, status=-signal.SIGKILL)
    sweep(tmp_path)
    [left] = tmp_path.glob(".latest.pth.*")
    assert os.readlink(left) == "iter_4.pth" and os.readlink(tmp_path / "latest.pth") == "iter_2.pth"
    with FolderLock(tmp_path, "a training") as lock:
        lock.sweep()
        assert not left.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iter_2.pth", "latest.pth"]


@pytest.mark.parametrize("zipped", [True, False])
def test_official_files_count_from_zero_and_may_hold_numpy_values(tmp_path, zipped):
    path = tmp_path / "iter_10.pth"
    meta = {"iter": 9, "epoch": 1, "mmseg_version": "0.13.0+0123456", "CLASSES": ("a", "b"), "lr": np.float64(0.1)}
    torch.save(
        {"meta": {**meta, "PALETTE": np.zeros((2, 3), np.uint8)}, "state_dict": small_model().state_dict()},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert resuming.finished_iterations(read_checkpoint(path), path) == 10


def test_checkpoints_of_gsfms_script_are_resumed(tmp_path, trained):
    """They count updates and hold ``it, network, optimizer, scheduler``; parameters come in the order of the model."""
    groups, states = trained["optimizer"]["param_groups"], trained["optimizer"]["state"]
    by_name = {name: states.get(index, {}) for group in groups for name, index in zip(group["names"], group["params"])}
    order = [name for name, _ in trainer(tmp_path / "model").model.named_parameters()]
    group = {key: value for key, value in groups[0].items() if key != "names"} | {"params": list(range(len(order)))}
    theirs = {
        "it": 7,
        "network": trained["state_dict"],
        "optimizer": {
            "state": {k: by_name[name] for k, name in enumerate(order) if by_name[name]},
            "param_groups": [group],
        },
        "scheduler": {"last_epoch": 7},
    }
    torch.save(theirs, tmp_path / "s0_checkpoint.pth")
    run = trainer(tmp_path / "run", resume_from=tmp_path / "s0_checkpoint.pth")
    assert run.start == 7
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, trained["state_dict"][name])
    for name, parameter in run.model.named_parameters():
        for key, value in by_name[name].items():
            assert torch.equal(torch.as_tensor(run.update.optimizer.state[parameter][key]), torch.as_tensor(value))


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(small_model().state_dict(), path)
    with pytest.raises(CheckpointError, match="--load-from"):
        resuming.finished_iterations(read_checkpoint(path), path)


# --- resuming from any file ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """A checkpoint of a real run."""
    folder = tmp_path_factory.mktemp("trained")
    trainer(folder, {"runner.max_iters": 2}).run()
    return read_checkpoint(folder / "iter_2.pth")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that can be set back by any checkpoint; its loss scaler is on."""
    run = trainer(tmp_path_factory.mktemp("run"))
    run.update.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return run


FACTS = dict(seed=5, world_size=1, samples_per_gpu=2, gradient_accumulation=1, amp={}, finetune_trains=None)


def go_on(run, path: pathlib.Path, content: dict) -> None:
    """Resume, and make one update."""
    torch.save(content, path)
    assert resuming.saved_run(path).seed in (None, 5)
    done = resuming.resume(path, run.model, run.update, FACTS)
    assert type(done) is int and done >= 0
    run.update([batch_of(1)])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("meta", None, "no iteration number"),
        ("meta", "x", "meta is a str"),
        ("meta.iter", -5, r"meta\['iter'\] is no number of iterations but -5"),
        ("meta.iter", True, r"meta\['iter'\] is no number of iterations but True"),
        ("meta.iter", 2.0, r"meta\['iter'\] is no number"),
        ("meta.iter", 10**30, r"meta\['iter'\] is no number"),
        ("meta.iter", torch.zeros(3), r"meta\['iter'\] is no number of iterations but a Tensor"),
        ("meta.seed", "x", r"meta\['seed'\] is no seed but 'x'"),
        ("meta.seed", -1, r"meta\['seed'\] is no seed"),
        ("meta.finetune_trains", 3, r"meta\['finetune_trains'\] is no part of a name but 3"),
        ("meta.amp", [np.zeros(3)], r"meta\['amp'\] is no plain value"),
        ("optimizer", "x", "optimiser state is a str"),
        ("optimizer", None, "optimiser state is a NoneType"),
        ("optimizer", {}, "no param_groups"),
        ("optimizer.state", [], "no state"),
        ("optimizer.param_groups", "x", "no param_groups"),
        ("optimizer.param_groups", [3], "no list of parameters"),
        ("optimizer.param_groups.0.params", ["x"], "no list of parameters"),
        ("optimizer.state.0", 3, "optimiser state of parameter 0 is a int"),
        ("optimizer.state.0.exp_avg", float("nan"), "exp_avg.* no plain finite number or tensor"),
        ("optimizer.state.0.step", float("inf"), "step.* no plain finite number"),
        ("optimizer.state.0.exp_avg", torch.zeros(8).to_sparse(), "exp_avg.* no plain"),
        ("optimizer.state.0.exp_avg", torch.zeros(1).expand(10**6, 10**6), "exp_avg.* no plain"),
    ],
)
def test_damaged_parts_are_named(tmp_path, trained, run, place, value, message):
    content = copy.deepcopy(trained)
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    target = content
    for key in parents:
        target = target[key]
    target[last] = value
    with pytest.raises(CheckpointError, match=message):
        go_on(run, tmp_path / "a.pth", content)


def test_what_a_checkpoint_says_about_its_run(tmp_path, trained):
    def saved(**meta):
        torch.save({**trained, "meta": {**trained["meta"], **meta}}, tmp_path / "a.pth")
        return resuming.saved_run(tmp_path / "a.pth")

    assert saved(CLASSES=["sky", "road"], finetune_trains="head") == (True, 5, "head", ["sky", "road"])
    assert saved(writer="another").is_ours is False and saved(CLASSES=None).classes is None


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths of all entries of nested containers; of a list and of the optimiser's states, the first alone."""
    if isinstance(value, dict):
        inner = list(value.items())[: 1 if path == ("optimizer", "state") else None]
    else:
        inner = list(enumerate(value))[:1] if isinstance(value, list) else []
    return [path, *(place for key, entry in inner for place in places(entry, (*path, key)))]


ANYTHING = [
    None, True, -1, 10**30, 0.5, float("nan"), "x", [], {}, {"a": {}}, np.zeros(3), torch.zeros(3),
    torch.zeros(2, 2).to_sparse(), torch.zeros(5, device="meta"), torch.zeros(1).expand(10**9), torch.Size([2]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_whatever_stands_in_a_checkpoint_it_is_resumed_or_refused(tmp_path, trained, run, caplog):
    """Every entry is replaced by every kind of value: no other error than ours, and no hang."""
    trained = {**trained, "scaler": run.update.scaler.state_dict()}
    paths = places({key: trained[key] for key in ("meta", "optimizer", "scaler")})[1:]
    settings = {"params", "names", "lr"}  # of a parameter group; others are as little read as the last
    caplog.set_level("CRITICAL")
    paths = [path for path in paths if path[:2] != ("optimizer", "param_groups") or not {*path[3:4]} - settings]
    assert len(paths) > 20
    went_on = refused = 0
    for path in paths:
        for value in ANYTHING:
            content = {**trained, **{key: copy.copy(trained[key]) for key in ("meta", "optimizer", "scaler")}}
            target = content
            for key in path[:-1]:
                target[key] = copy.copy(target[key])
                target = target[key]
            target[path[-1]] = value
            try:
                go_on(run, tmp_path / "a.pth", content)
                went_on += 1
            except SegError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{path} = {value!r}") from error
    assert refused > 100 and went_on > 100
