"""``tools/train.py`` and ``tools/dist_train.sh`` as a user starts them, with a toy model."""

import json
import os
import pathlib
import re
import signal
import time

import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG
from tests.tools.processes import DIST, TRAIN, finish, finish_two, patience, read_until, running


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "my configs" / "toy.one.py"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def assert_same_weights(a: pathlib.Path, b: pathlib.Path) -> None:
    a, b = read_checkpoint(a)["state_dict"], read_checkpoint(b)["state_dict"]
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_help(call):
    output = call("train.py", "--help")
    flags = (
        "work-dir load-from finetune-from resume-from auto-resume no-validate dry-run gpus gpu-ids seed deterministic"
    )
    for flag in f"{flags} options".split():
        assert f"--{flag}" in output
    assert "--launcher" in output and "--local_rank" in output


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path, config):
    whole, resumed = tmp_path / "whole run", tmp_path / "resumed"
    output = finish_two("train.py", tmp_path, config, "--work-dir", whole, "--no-validate")
    seed = int(re.search(r"2 process\(es\), seed (\d+)", output)[1])  # which both have agreed on, else this one ...
    assert output.count("batch norm uses the statistics of each process") == 1
    assert output.count("Iter [6/6]") == 1
    assert "FutureWarning" not in output
    again = [config, "--work-dir", resumed, "--resume-from", whole / "iter_2.pth", "--no-validate"]
    finish_two("train.py", tmp_path, *again)
    # ... in which both have it from the checkpoint, would take another course
    assert_same_weights(whole / "iter_6.pth", resumed / "iter_6.pth")
    assert read_checkpoint(resumed / "latest.pth")["meta"]["seed"] == seed


@pytest.mark.slow
def test_one_cpu_process_with_defaults(tmp_path, config, call, monkeypatch):
    options = ["--options", "runner.max_iters=3", "optimizer.lr=0.02"]
    output = finish([*TRAIN, config, "--gpus", 0, *options, "--local-rank=0", "--deterministic"], tmp_path)
    folder = tmp_path / "work_dirs" / "toy.one"
    assert sorted(p.name for p in folder.glob("*.pth")) == ["iter_2.pth", "iter_3.pth", "latest.pth"]
    assert "max_iters=3" in (folder / "toy.one.py").read_text() and "lr=0.02" in (folder / "toy.one.py").read_text()
    assert len(list(folder.glob("*.log"))) == len(list(folder.glob("*.log.json"))) == 1
    assert "the config has no data.val" in output
    meta = read_checkpoint(folder / "latest.pth")["meta"]
    assert list(meta["CLASSES"]) == ["r", "g", "b"] and json.loads(meta["config"])["runner"]["max_iters"] == 3
    assert f"seed {meta['seed']}" in output
    monkeypatch.chdir(tmp_path)
    loaded = call("train.py", config, "--load-from", folder / "latest.pth", "--work-dir", "b", "--gpus", 1)
    assert "weights of" in loaded and (tmp_path / "b" / "iter_6.pth").exists()


@pytest.mark.slow
def test_stopped_killed_and_resumed(tmp_path, config, call):
    arguments = [config, "--work-dir", tmp_path, "--auto-resume"]
    forever = [*TRAIN, *arguments, "--options", "runner.max_iters=1000000", "checkpoint_config.interval=1"]
    with running(forever, tmp_path) as first:
        read_until(first, r"Iter \[6/")
        os.killpg(first.pid, signal.SIGTERM)  # as a scheduler does: the data workers get it, too
        output, _ = first.communicate(timeout=patience(20))
    assert first.returncode == 143, output
    done = int(re.search(r"SIGTERM: stopped after iteration (\d+), which is saved", output)[1])
    assert os.readlink(tmp_path / "latest.pth") == f"iter_{done}.pth"

    with running(forever, tmp_path) as second:
        later = done + 10 - done % 2  # every second iteration is logged
        seen = read_until(second, rf"Iter \[{later}/")
        second.kill()
    assert f"resumed from {tmp_path}/latest.pth after {done} iterations" in seen
    reached = read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"]
    assert reached > done

    output = call("train.py", *arguments, "--options", f"runner.max_iters={reached + 2}")
    assert f"after {reached} iterations" in output and f"Iter [{reached + 2}/{reached + 2}]" in output
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path, config):
    command = [*DIST, config, 2, "--work-dir", tmp_path, "--options", "runner.max_iters=1000000"]
    with running(command, tmp_path) as process:
        read_until(process, r"Iter \[20/")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=patience(30))
    assert time.monotonic() - began < patience(8), output  # torchrun would end them by force after 30 s
    assert process.returncode == 143 and "Traceback" not in output
    done = int(re.search(r"SIGTERM: stopped after iteration (\d+)", output)[1])
    assert read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"] == done


@pytest.mark.slow
def test_a_second_training_in_the_folder_is_refused_until_the_first_has_ended(tmp_path, config, call):
    endless = ["--work-dir", tmp_path, "--options", "runner.max_iters=1000000", "checkpoint_config.interval=5"]
    with running([*TRAIN, config, *endless], tmp_path) as process:
        read_until(process, "saved .*iter_5.pth")
        before = sorted(path.name for path in tmp_path.glob("*.log"))
        output = finish_two("train.py", tmp_path, config, *endless, status=2)
        assert f"in use by a training (process {process.pid} on " in output and "Traceback" not in output
        assert sorted(path.name for path in tmp_path.glob("*.log")) == before
        read_until(process, "saved ")  # it goes on
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / ".latest.pth.0123abcd.writing").symlink_to("iter_5.pth")  # had it been killed before the link's rename
    output = call("train.py", config, "--work-dir", tmp_path, "--auto-resume")
    assert f"process {process.pid} on " in output and "has died" in output and "resumed from" in output
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_full_disk_ends_all_processes_and_loses_nothing(tmp_path, config, call):
    """No file may grow beyond 8 kB, which a checkpoint needs and the logs do not."""
    call("train.py", config, "--work-dir", tmp_path, "--options", "runner.max_iters=2")
    before = (tmp_path / "iter_2.pth").read_bytes()
    again = [config, "--work-dir", tmp_path, "--auto-resume"]
    output = finish_two("train.py", tmp_path, *again, status=2, largest_file=8 * 1024)
    assert "iter_4.pth: cannot be written" in output and "earlier checkpoints are intact" in output
    assert "Traceback" not in output
    assert [p.name for p in sorted(tmp_path.glob("*.pth"))] == ["iter_2.pth", "latest.pth"]
    assert (tmp_path / "latest.pth").read_bytes() == before and not list(tmp_path.glob(".*"))


def test_dry_run(tmp_path, config, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    output = call("train.py", config, "--dry-run", "--gpus", 0)
    assert "dry run: all is well" in output and "iter_1.pth" in output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], r"config file missing\.py does not exist"),
        (["{config}", "--options", "runner.max_itres=3"], "did you mean 'max_iters'"),
        (["{config}", "--gpus", "2"], r"dist_train\.sh .* 2"),
        (["{config}", "--launcher", "pytorch"], "LOCAL_RANK"),
        (["{config}", "--resume-from", "none.pth"], r"none\.pth: no such file"),
        (["{config}", "--options", "model.num_classes=7"], "the model has 7 classes, data.train has 3"),
    ],
)
def test_mistakes_end_with_a_message(tmp_path, config, arguments, message, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, call("train.py", *(a.format(config=config) for a in arguments), status=2))


@pytest.mark.parametrize("arguments", [["only_a_config.py"], ["a.py", "two"]])
def test_dist_script_usage(tmp_path, arguments):
    assert "GPUS" in finish([*DIST, *arguments], tmp_path, status=2)
