"""``tools/train.py`` and ``tools/dist_train.sh`` as a user starts them, with a toy model."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from mmseg.engine.checkpoint import read_checkpoint
from tests.engine.toy import CONFIG

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "tools" / "train.py")]
DIST = [str(ROOT / "tools" / "dist_train.sh")]


def environment() -> dict[str, str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {
        **env,
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }


def start(command: list, cwd: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(command: list, cwd: pathlib.Path, status: int = 0) -> str:
    process = start(command, cwd)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def read_until(process: subprocess.Popen, pattern: str) -> str:
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"{pattern!r} never came:\n{seen}")


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "my configs" / "toy.one.py"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def assert_same_weights(a: pathlib.Path, b: pathlib.Path) -> None:
    a, b = read_checkpoint(a)["state_dict"], read_checkpoint(b)["state_dict"]
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_help():
    output = subprocess.run([*TRAIN, "--help"], env=environment(), capture_output=True, text=True, check=True).stdout
    for (
        flag
    ) in "work-dir load-from resume-from auto-resume no-validate gpus gpu-ids seed deterministic options".split():
        assert f"--{flag}" in output
    assert "--launcher" in output and "--local_rank" in output


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path, config):
    whole, resumed = tmp_path / "whole run", tmp_path / "resumed"
    output = finish([*DIST, config, 2, "--work-dir", whole, "--seed", 3, "--no-validate"], tmp_path)
    assert "2 process(es), seed 3" in output
    assert output.count("batch norm uses the statistics of each process") == 1
    assert output.count("Iter [6/6]") == 1
    assert "FutureWarning" not in output
    finish([*DIST, config, 2, "--work-dir", resumed, "--resume-from", whole / "iter_2.pth", "--no-validate"], tmp_path)
    assert_same_weights(whole / "iter_6.pth", resumed / "iter_6.pth")
    assert read_checkpoint(resumed / "latest.pth")["meta"]["seed"] == 3


@pytest.mark.slow
def test_one_cpu_process_with_defaults(tmp_path, config):
    output = finish(
        [*DIST, config, 0, "--options", "runner.max_iters=3", "optimizer.lr=0.02", "--local-rank=0", "--deterministic"],
        tmp_path,
    )
    folder = tmp_path / "work_dirs" / "toy.one"
    assert sorted(p.name for p in folder.glob("*.pth")) == ["iter_2.pth", "iter_3.pth", "latest.pth"]
    assert "max_iters=3" in (folder / "toy.one.py").read_text() and "lr=0.02" in (folder / "toy.one.py").read_text()
    assert len(list(folder.glob("*.log"))) == len(list(folder.glob("*.log.json"))) == 1
    assert "the config has no data.val" in output
    meta = read_checkpoint(folder / "latest.pth")["meta"]
    assert list(meta["CLASSES"]) == ["r", "g", "b"] and "max_iters=3" in meta["config"]
    assert f"seed {meta['seed']}" in output
    loaded = finish([*TRAIN, config, "--load-from", folder / "latest.pth", "--work-dir", "b", "--gpus", 1], tmp_path)
    assert "weights of" in loaded and (tmp_path / "b" / "iter_6.pth").exists()


@pytest.mark.slow
def test_stopped_killed_and_resumed(tmp_path, config):
    command = [*TRAIN, config, "--work-dir", tmp_path, "--auto-resume"]
    forever = [*command, "--options", "runner.max_iters=1000000", "checkpoint_config.interval=1"]
    first = start(forever, tmp_path)
    read_until(first, r"Iter \[6/")
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 143, output
    done = int(re.search(r"SIGTERM: stopped after iteration (\d+), which is saved", output)[1])
    assert os.readlink(tmp_path / "latest.pth") == f"iter_{done}.pth"

    second = start(forever, tmp_path)
    assert f"resumed from {tmp_path}/latest.pth after {done} iterations" in read_until(
        second, rf"Iter \[{done + 9}|{done + 10}/"
    )
    second.kill()
    second.communicate()
    reached = read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"]
    assert reached > done

    output = finish([*command, "--options", f"runner.max_iters={reached + 2}"], tmp_path)
    assert f"after {reached} iterations" in output and f"Iter [{reached + 2}/{reached + 2}]" in output
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path, config):
    process = start([*DIST, config, 2, "--work-dir", tmp_path, "--options", "runner.max_iters=1000000"], tmp_path)
    read_until(process, r"Iter \[20/")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert time.monotonic() - began < 25, output  # torchrun would end them by force after 30 s
    done = int(re.search(r"SIGTERM: stopped after iteration (\d+)", output)[1])
    assert read_checkpoint(tmp_path / "latest.pth")["meta"]["iter"] == done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], r"config file missing\.py does not exist"),
        (["{config}", "--options", "runner.max_itres=3"], "did you mean 'max_iters'"),
        (["{config}", "--gpus", "2"], r"dist_train\.sh .* 2"),
        (["{config}", "--launcher", "pytorch"], "LOCAL_RANK"),
        (["{config}", "--resume-from", "none.pth"], r"none\.pth: no such file"),
        (["{config}", "--options", "model.num_classes=7"], "num_classes = 7"),
    ],
)
def test_mistakes_end_with_a_message(tmp_path, config, arguments, message):
    output = finish([*TRAIN, *(a.format(config=config) for a in arguments)], tmp_path, status=2)
    assert re.search(message, output) and "Traceback" not in output


@pytest.mark.parametrize("arguments", [["only_a_config.py"], ["a.py", "two"]])
def test_dist_script_usage(tmp_path, arguments):
    assert "GPUS" in finish([*DIST, *arguments], tmp_path, status=2)
