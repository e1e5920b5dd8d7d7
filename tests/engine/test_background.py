"""Checkpoints that a thread writes: what they hold, what they wait for, how they fail, and kills at any moment."""

import sys
import threading

import pytest
import torch

from mmseg.engine.background import BackgroundWriter, on_cpu
from mmseg.engine.checkpoints import NonFiniteError
from mmseg.errors import DataError, WriteError
from mmseg.weights import read_checkpoint
from tests.engine.toy_training import assert_same_checkpoint, lines, trainer
from tests.tools.processes import ROOT, finish


def test_what_changes_after_the_copy_is_not_written():
    """Containers are copied at once and tensors until a step may change them."""
    large, small = torch.ones(5_000_000), torch.ones(3)
    state = {"weights": [large, small], "lr": {"now": 0.1}}
    written, writer = [], BackgroundWriter()
    writer.begin(state, written.append)
    state["lr"]["now"] = 0.2
    writer.settle()
    large.zero_(), small.zero_()
    writer.wait()
    assert written[0]["lr"] == {"now": 0.1}
    assert all(bool((tensor == 1).all()) for tensor in written[0]["weights"])


def test_a_write_is_not_waited_for_but_by_the_next_one():
    writer, free, written = BackgroundWriter(), threading.Event(), []

    def write(state):
        assert free.wait(30)
        written.append(state["number"])

    writer.begin({"number": 1}, write)
    writer.settle()
    assert not written  # and yet this goes on
    threading.Timer(0.2, free.set).start()
    writer.begin({"number": 2}, write)
    assert written[0] == 1
    writer.wait()
    assert written == [1, 2]


def test_after_a_failure_nothing_is_written():
    writer, written = BackgroundWriter(), []

    def fail(state):
        raise WriteError("no space")

    writer.begin({}, fail)
    for again in (writer.wait, lambda: writer.begin({}, written.append)):
        with pytest.raises(WriteError, match="no space"):
            again()
    assert not written


def test_shared_tensors_stay_shared():
    shared = torch.ones(4)
    copied = on_cpu({"a": shared, "b": [shared.detach(), shared[:2]]}, copies=True)
    assert copied["a"].data_ptr() == copied["b"][0].data_ptr() != shared.data_ptr()
    assert copied["b"][1].untyped_storage().nbytes() == 8  # not all of what it is a view of


@pytest.mark.parametrize("options", [{}, {"ema": {"momentum": 0.3}, "amp.dtype": "bfloat16"}])
def test_files_are_those_that_are_waited_for(tmp_path, options):
    """With a first weight so large that the next update would begin before those after it are copied."""
    for name, background in (("waits", False), ("goes on", True)):
        run = trainer(tmp_path / name, {**options, "checkpoint_config": dict(interval=3, background=background)})
        run.model.register_parameter("large", torch.nn.Parameter(torch.zeros(5_000_000)))
        group = run.update.optimizer.param_groups[0]
        group["params"].insert(0, run.model.large)
        run.model.large.grad, group["names"] = None, ["large", *group.get("names", [])]
        run.run()
    for done in (3, 6):
        assert_same_checkpoint(*(tmp_path / name / f"iter_{done}.pth" for name in ("waits", "goes on")))
    assert lines(tmp_path / "waits") == lines(tmp_path / "goes on")


@pytest.mark.parametrize("scale", [1.0, float("inf")], ids=["step", "step left out"])
def test_an_average_changes_after_it_is_copied(tmp_path, scale):
    """A loss scaler leaves a step out where no gradient is finite, and the average moves on all the same. (A fused
    optimiser is called even then, and leaves it out itself.)"""
    options = {"ema": {"momentum": 0.3}, "optimizer.fused": False, "checkpoint_config.interval": 3}
    run = trainer(tmp_path, options)
    copied, step, update, seen = run.checkpoints._writer._copied, run.schedule.step, run.average.update, []
    run.update.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def copy_slowly(iteration):
        step(iteration)
        if iteration == 1:
            copied.clear()
            threading.Timer(0.5, copied.set).start()

    def look(iteration):
        seen.append(copied.is_set())
        update(iteration)

    run.schedule.step, run.average.update = copy_slowly, look
    run.run()
    assert all(seen) and len(seen) == 6


def test_weights_that_are_no_numbers_end_the_training_unsaved(tmp_path):
    run = trainer(tmp_path, {"checkpoint_config.interval": 2})
    step = run.schedule.step

    def spoil(iteration):
        if iteration == 3:
            with torch.no_grad():
                run.model.unused.weight.fill_(float("inf"))
        step(iteration)

    run.schedule.step = spoil
    with pytest.raises(NonFiniteError, match=r"after iteration 4 the weight unused\.weight"):
        run.run()
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["iter_2.pth", "latest.pth"]


def test_what_has_been_begun_is_on_the_disk_when_another_error_ends_the_training(tmp_path):
    run = trainer(tmp_path, {"checkpoint_config.interval": 1}, seed=0)
    run.dataset.fails_at = 3
    with pytest.raises(DataError, match="video 3"):
        run.run()
    newest = read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"]
    assert newest == max(int(p.stem[5:]) for p in tmp_path.glob("iter_*.pth")) and not list(tmp_path.glob(".*"))


KILLS = """
import itertools, multiprocessing, os, pathlib, random, re, sys, time, torch
from mmseg.engine.checkpoints import Checkpoints
from mmseg.files import sweep
from mmseg.weights import read_checkpoint

class Updater:
    def __init__(self, model):
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

def save_for_ever(folder, start, pipe):
    model = torch.nn.Linear(1000, 400)
    updater = Updater(model)
    checkpoints = Checkpoints(folder, model, updater, {}, max_keep=2)
    for done in itertools.count(start + 1):
        updater.optimizer.zero_grad()
        model(torch.ones(1, 1000)).sum().backward()
        updater.optimizer.step()
        with torch.no_grad():
            model.weight.fill_(done)
        checkpoints.save(done)
        pipe.send(done)

folder, rng, reached, met = pathlib.Path(sys.argv[1]), random.Random(0), 0, 0
for _ in range(20):
    there, pipe = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(folder, reached, pipe))
    child.start()
    pipe.close()
    stop = reached + rng.randint(2, 4)
    begun = there.recv()
    while begun < stop:
        begun = there.recv()
    time.sleep(rng.uniform(0, 0.03))
    child.kill()
    child.join()
    while there.poll():
        try:
            begun = there.recv()
        except EOFError:
            break
    latest = int(re.fullmatch(r"iter_(\\d+)\\.pth", os.readlink(folder / "latest.pth"))[1])
    whole = sorted(int(path.stem[5:]) for path in folder.glob("iter_*.pth"))
    assert latest in whole and whole[-1] - latest in (0, 1) and latest > reached, (latest, whole, reached)
    assert latest >= begun - 1, (latest, begun)  # the save that has begun last waits for those before it
    for done in whole:
        content = read_checkpoint(folder / f"iter_{done}.pth")
        assert content["meta"]["iter"] == done
        assert bool((content["state_dict"]["weight"] == done).all()) and content["optimizer"]["state"][0]
    reached, met = latest, met + len(list(folder.glob(".iter_*")))
    sweep(folder, alone=True)
print("kills that met a write:", met)
"""


@pytest.mark.slow
def test_twenty_kills_at_any_moment_leave_a_whole_newest_checkpoint(tmp_path):
    """The newest and what latest.pth leads to are whole, and no save that another has followed is lost."""
    output = finish([sys.executable, "-c", KILLS, tmp_path], ROOT)
    assert int(output.rpartition(":")[2]) > 3, output
    left = {p.name for p in tmp_path.iterdir()}
    assert all(name == "latest.pth" or name.startswith("iter_") for name in left), left
