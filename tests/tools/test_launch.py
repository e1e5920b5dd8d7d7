"""The shell commands that start processes: ports, numbers and programs that are not there are one line, status 2."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from tests.tools.processes import DIST, ROOT, environment, finish, patience, running

SLURM = str(ROOT / "tools" / "slurm_train.sh")


def refused(command: list, cwd: pathlib.Path, **env: str) -> str:
    """The one line that a command says before it ends with status 2."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=patience(20)
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def fake_srun(tmp_path) -> str:
    """A PATH with an srun that prints what it is asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text('#!/bin/sh\necho "MASTER_PORT=${MASTER_PORT:-none}" "$@"\n')
    (folder / "srun").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PORT": "99999"}, ["99999", "1 to 65535"]),
        ({"PORT": "abc"}, ["'abc'", "1 to 65535"]),
        ({"NNODES": "x"}, ["NNODES is 'x'"]),
        ({"NNODES": "2", "NODE_RANK": "2"}, ["NODE_RANK is 2", "NNODES"]),
        ({"PYTHON": "no-such-python"}, ["no-such-python", "PYTHON"]),
    ],
)
def test_what_dist_train_refuses(tmp_path, variables, words):
    message = refused([*DIST, "c.py", 2], tmp_path, **variables)
    assert all(word in message for word in words)


def test_a_python_without_the_packages(tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    for gpus in (0, 2):
        assert f"{bare} lacks packages" in refused([*DIST, "c.py", gpus], tmp_path, PYTHON=str(bare))


def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in refused([*DIST, "c.py", 2], tmp_path, PORT=str(port))


@pytest.mark.parametrize("gpus", ["two", "-1", "08", ""])
def test_numbers_of_processes(tmp_path, gpus):
    assert f"GPUS is '{gpus}'" in refused([*DIST, "c.py", gpus], tmp_path)


HOLD = """
import pathlib, os, sys, time
pathlib.Path(sys.argv[1], os.environ["MASTER_PORT"]).touch()
while len(os.listdir(sys.argv[1])) < 2:
    time.sleep(0.05)
"""


def test_two_runs_at_once_find_a_port_each(tmp_path):
    """Both are there at the same time, at two ports."""
    (tmp_path / "hold.py").write_text(HOLD)
    (tmp_path / "ports").mkdir()
    command = [sys.executable, ROOT / "tools" / "launch.py", "29500", "1", "hold.py", "ports"]
    with running(command, tmp_path) as one, running(command, tmp_path) as two:
        for run in (one, two):
            output, _ = run.communicate(timeout=patience(30))
            assert run.returncode == 0, output


def test_mistakes_are_told_without_waiting_for_pytorch(tmp_path):
    """As on a machine where importing it fails."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    assert "NNODES is 'x'" in refused([*DIST, "c.py", 2], tmp_path, NNODES="x", PYTHONPATH=str(tmp_path))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"GPUS": "abc"}, ["GPUS is 'abc'"]),
        ({"GPUS": "0"}, ["GPUS is '0'"]),
        ({"GPUS_PER_NODE": "x"}, ["GPUS_PER_NODE is 'x'"]),
        ({"CPUS_PER_TASK": "x"}, ["CPUS_PER_TASK is 'x'"]),
        ({"PORT": "abc"}, ["PORT is 'abc'"]),
        ({"PORT": "99999"}, ["PORT is '99999'"]),
        ({"PYTHON": "no-such-python"}, ["no-such-python"]),
    ],
)
def test_what_slurm_train_refuses(tmp_path, fake_srun, variables, words):
    message = refused([SLURM, "part", "job", "c.py"], tmp_path, PATH=fake_srun, **variables)
    assert all(word in message for word in words)


def test_no_srun(tmp_path):
    """On a PATH with nothing else than what the script needs."""
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    assert "no srun" in refused([SLURM, "part", "job", "c.py"], tmp_path, PATH=str(tmp_path))


def test_what_srun_is_asked_for(tmp_path, fake_srun):
    command = [SLURM, "part", "job", "c.py", "--seed", "1"]
    line = finish(command, tmp_path, PATH=fake_srun, GPUS="16", SRUN_ARGS="--time=1 --mem=2")
    for words in (
        "-p part",
        "--job-name=job",
        "--gres=gpu:8",
        "--ntasks=16",
        "--ntasks-per-node=8",
        "--time=1 --mem=2",
    ):
        assert words in line
    assert line.rstrip().endswith("train.py c.py --seed 1 --launcher slurm") and "MASTER_PORT=none" in line
    assert "MASTER_PORT=1234" in finish(command, tmp_path, PATH=fake_srun, PORT="1234")


def test_many_videos_by_srun(tmp_path, fake_srun):
    command = [ROOT / "tools/slurm_infer.sh", "part", "job", "m.pth", "--input", "my list.txt", "--out", "seen"]
    line = finish(command, tmp_path, PATH=fake_srun, GPUS="2")
    assert "--ntasks=2" in line and line.rstrip().endswith(
        "infer.py m.pth --input my list.txt --out seen --launcher slurm"
    )
    assert "usage" in finish(command[:3], tmp_path, status=2, PATH=fake_srun)
