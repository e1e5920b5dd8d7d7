"""Trainings that are started anew: by torchrun after a crash, on two machines, and by slurm after a preemption."""

import os
import pathlib
import re
import signal
import socket
import sys

import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG
from tests.engine.toy_training import assert_same_checkpoint
from tests.tools.processes import DIST, ROOT, TRAIN, finish, finish_two, patience, read_until, running

LAUNCH = [sys.executable, str(ROOT / "tools" / "launch.py"), "43412", "1", TRAIN[1]]  # as in tools/processes.sh
CRASH = """
import os, signal
from mmseg.registry import DATASETS
from tests.engine.toy import ToyClips

@DATASETS.register_module()
class Crashes(ToyClips):
    def clip(self, *arguments):
        if os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" and os.environ["RANK"] == "1" and len(self.seen) == 6:
            os.kill(os.getpid(), signal.SIGKILL)  # in the fourth iteration of two clips
        return super().clip(*arguments)
"""


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    (tmp_path / "crash.py").write_text(CRASH)
    path = tmp_path / "toy.py"
    path.write_text(CONFIG.replace('"tests.engine.toy"', '"tests.engine.toy", "crash"').replace("ToyClips", "Crashes"))
    return path


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_machines_go_on_together_after_a_crash_on_one(tmp_path, config):
    """The second machine's process is killed; both start anew from the newest checkpoint, with exactly the numbers of a
    run without a crash, and although they have been told to start from another one."""
    finish_two("train.py", tmp_path, config, "--work-dir", "whole", "--seed", 3, python_path=str(tmp_path))
    arguments = ["--work-dir", "w", "--resume-from", "whole/iter_2.pth"]
    env = dict(NNODES="2", PORT=free_port(), MAX_RESTARTS="2", PYTHONPATH=f"{tmp_path}:{ROOT}")
    with (
        running([*LAUNCH, config, *arguments, "--launcher=pytorch"], tmp_path, NODE_RANK="1", **env) as other,
        running([*DIST, config, 1, *arguments], tmp_path, NODE_RANK="0", **env) as first,
    ):
        said = first.communicate(timeout=patience(120))[0]
        others = other.communicate(timeout=patience(20))[0]
    assert (first.returncode, other.returncode) == (0, 0), said + others
    assert "killed by SIGKILL" in others and "restart 1 of 2" in others and "restart 1 of 2" in said
    assert "resumed from whole/iter_2.pth after 2" in said and "going on from w/latest.pth (iter_4.pth)" in said
    assert "Iter [6/6]" in said.partition("restart 1 of 2")[2]
    assert_same_checkpoint_but_for_the_run(tmp_path / "whole" / "iter_6.pth", tmp_path / "w" / "iter_6.pth")


def assert_same_checkpoint_but_for_the_run(a: pathlib.Path, b: pathlib.Path) -> None:
    content = read_checkpoint(b)
    assert content["meta"].pop("run")
    torch.save(content, b.with_name("same.pth"))
    assert_same_checkpoint(a, b.with_name("same.pth"))


@pytest.mark.slow
def test_a_mistake_is_not_repeated(tmp_path, config):
    command = [*LAUNCH, config, "--work-dir", "w", "--launcher=pytorch", "--options", "optimizer.type=Adamm"]
    output = finish(command, tmp_path, status=2, MAX_RESTARTS="3", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert output.count("Adamm") == 1 and "restart" not in output


def test_restarts_without_a_launcher_are_refused(tmp_path):
    assert "GPUS is 0" in finish([*DIST, "c.py", 0], tmp_path, status=2, MAX_RESTARTS="1")
    assert "MAX_RESTARTS is 'x'" in finish([*DIST, "c.py", 1], tmp_path, status=2, MAX_RESTARTS="x")
    assert "JOIN_TIMEOUT is '0'" in finish([*DIST, "c.py", 1], tmp_path, status=2, JOIN_TIMEOUT="0")


def test_a_run_that_is_started_anew_goes_on_from_what_it_has_saved_itself(tmp_path, config, call, monkeypatch):
    """Not from what another one has left in the folder, which it was not told to go on from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    short = ["--options", "runner.max_iters=2"]
    call("train.py", config, "--work-dir", "w", *short)
    monkeypatch.setenv("MMSEG_RUN_ID", "this one")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    output = call("train.py", config, "--work-dir", "w", "--load-from", "w/iter_2.pth", *short)
    assert "restart 1: this run has saved nothing yet" in output and "weights of w/iter_2.pth loaded" in output
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    output = call("train.py", config, "--work-dir", "w", "--load-from", "w/iter_2.pth")
    assert "restart 2: going on from w/latest.pth (iter_2.pth)" in output and "resumed from w/latest.pth" in output
    (tmp_path / "w" / "iter_6.pth").write_bytes(b"cut off")
    output = call("train.py", config, "--work-dir", "w", "--load-from", "w/iter_2.pth")
    assert "going on from w/iter_4.pth" in output and "tried: w/latest.pth: " in output, output


@pytest.mark.slow
def test_a_machine_that_never_joins(tmp_path, config):
    """The first one waits for the second, the second for the first, and processes of slurm for those of the other."""
    env = dict(NNODES="2", PORT=free_port(), JOIN_TIMEOUT="2", PYTHONPATH=f"{tmp_path}:{ROOT}")
    for rank, command in (("0", [*LAUNCH, config, "--launcher=pytorch"]), ("1", [*DIST, config, 1])):
        output = finish(command, tmp_path, status=2, NODE_RANK=rank, **env)
        assert output.startswith(f"error: machine {rank} of 2 cannot meet the others at 127.0.0.1:{env['PORT']}")
        assert "JOIN_TIMEOUT" in output and output.count("\n") == 1, output
    slurm = dict(SLURM_PROCID="0", SLURM_NTASKS="2", SLURM_LOCALID="0", SLURM_NODELIST="127.0.0.1", **env)
    output = finish([*TRAIN, config, "--launcher=slurm"], tmp_path, status=2, MASTER_PORT=free_port(), **slurm)
    assert "process 0 cannot join the others" in output and "JOIN_TIMEOUT" in output and "Traceback" not in output


# --- slurm ------------------------------------------------------------------------------------------------------------

SRUN = """#!/bin/sh
# One task, as the real srun starts it: signals are passed on to it, and its status is the end.
while [ "${1#-}" != "$1" ]; do [ "$1" = -p ] && shift; shift; done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=127.0.0.1
exec "$@"
"""
SBATCH = """#!/usr/bin/env bash
# A job in the foreground, which says its number.
printf '%s\\n' "$@" > sbatch.txt
export SLURM_JOB_ID=77
exec sh -c "${!#}"
"""
SCONTROL = """#!/bin/sh
echo "$@" >> scontrol.txt
[ "$1" = requeue ] || cat state.txt
"""


@pytest.fixture
def slurm(tmp_path) -> str:
    """A PATH with stand-ins for slurm's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("sbatch", SBATCH), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (tmp_path / "state.txt").write_text("JobId=77 JobState=RUNNING Reason=None")
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
def test_a_preempted_job_saves_returns_to_the_queue_and_goes_on(tmp_path, config, slurm):
    submit = [ROOT / "tools/slurm_train.sh", "part", "job", config, "--work-dir", "my work", "--options"]
    env = dict(PATH=slurm, GPUS="1", REQUEUE="1", SBATCH_ARGS="--time=1", PYTHONPATH=f"{tmp_path}:{ROOT}")
    endless = ["runner.max_iters=1000000", "checkpoint_config.interval=1000000"]
    with running([*submit, *endless], tmp_path, **env) as job:
        read_until(job, r"Iter \[6/")
        job.send_signal(signal.SIGUSR1)  # as --signal=B: lets slurm tell the batch script, which passes it on
        output, _ = job.communicate(timeout=patience(20))
    assert job.returncode == 138, output
    done = int(re.search(r"SIGUSR1: stopped after iteration (\d+), which is saved", output)[1])
    asked = (tmp_path / "sbatch.txt").read_text().splitlines()
    assert {"--requeue", "--signal=B:USR1@120", "--time=1", "--ntasks=1", "--open-mode=append"} <= set(asked)
    assert (tmp_path / "scontrol.txt").read_text().splitlines()[-1] == "requeue 77" and "is queued again" in output
    (tmp_path / "state.txt").write_text("JobId=77 JobState=CANCELLED by 1000")  # what comes next is no preemption
    again = {**env, "SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "1"}  # slurm starts the script of the job anew
    with running([*submit, *endless], tmp_path, **again) as job:
        output = read_until(job, r"Iter \[")
        job.send_signal(signal.SIGTERM)
        said, _ = job.communicate(timeout=patience(20))
    assert f"restart 1: going on from my work/latest.pth (iter_{done}.pth)" in output
    assert job.returncode == 143 and "was cancelled: not queued again" in said
    assert (tmp_path / "scontrol.txt").read_text().count("requeue") == 1


def test_what_requeueing_needs(tmp_path, slurm):
    command = [ROOT / "tools/slurm_train.sh", "part", "job", "c.py"]
    assert "REQUEUE is 'yes'" in finish(command, tmp_path, status=2, PATH=slurm, REQUEUE="yes")
    assert "MAX_RESTARTS is '2'" in finish(command, tmp_path, status=2, PATH=slurm, MAX_RESTARTS="2")
    assert "WARNING is '2m'" in finish(command, tmp_path, status=2, PATH=slurm, REQUEUE="1", WARNING="2m")
    assert not (tmp_path / "sbatch.txt").exists()
    (tmp_path / "bin" / "sbatch").unlink()
    assert "no sbatch" in finish(command, tmp_path, status=2, PATH=slurm, REQUEUE="1")
