"""Data workers that die, hang or are left behind: real processes, real kills."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmseg.datasets.workers import Workers
from mmseg.errors import ConfigError, DataError
from tests.tools.processes import patience

ROOT = Path(__file__).parents[2]


def make(key):
    """Who made it and what for, in a tensor that travels through shared memory."""
    if key == "slow":
        time.sleep(600)
    if key == "bad":
        raise ConfigError("bad key", "a good one", "change it")
    if key == "bug":
        raise KeyError("forgotten")
    if key == "unsendable":
        return lambda: 0
    return torch.tensor([os.getpid(), key])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_results_come_in_order_from_all_workers_and_end_with_the_keys():
    results = [r.tolist() for r in Workers(make, iter(range(11)), 3)]
    assert [key for _, key in results] == list(range(11))
    pids = [pid for pid, _ in results]
    assert len(set(pids)) == 3 and pids[:3] == pids[3:6] and os.getpid() not in pids


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_one_clear_error(victim):
    workers = Workers(make, itertools.count(), 2)
    pids = [next(workers)[0].item() for _ in range(2)]
    os.kill(pids[victim], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError) as error:
        for _ in range(20):
            next(workers)
    assert time.monotonic() - began < 5
    assert f"data worker {victim} (process {pids[victim]}) was killed by SIGKILL" in error.value.found
    assert "/dev/shm" in str(error.value) and "workers_per_gpu (now 2)" in error.value.action
    assert wait_until(lambda: not any(map(alive, pids)))


def test_a_worker_killed_while_others_are_stuck_does_not_wait_for_them():
    workers = Workers(make, iter(["slow", 1, 2]), 2)
    [victim] = [p.pid for p in workers._processes[1:]]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"data worker 1 .* SIGKILL"):
        next(workers)
    assert time.monotonic() - began < 5


def test_errors_of_workers():
    with pytest.raises(ConfigError, match="bad key") as error:
        list(Workers(make, iter([0, "bad", 1]), 2))
    assert error.value.action == "change it"
    with pytest.raises(RuntimeError, match=r"in a data worker:\nTraceback[^$]*KeyError: 'forgotten'"):
        list(Workers(make, iter(["bug"]), 1))
    with pytest.raises(DataError, match="cannot hand over its batch"):
        list(Workers(make, iter(["unsendable"]), 1))


PROGRAM = """
import sys, time
from mmseg.datasets.workers import Workers
from tests.datasets.test_workers import make
workers = Workers(make, iter([0, 1, "slow", "slow"]), 2)
print(*[next(workers)[0].item() for _ in range(2)], flush=True)
if sys.argv[1] == "fails":
    raise RuntimeError("the training failed")
if sys.argv[1] == "waits":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["finishes", "fails", "is killed"])
def test_workers_end_with_their_parent_whatever_they_are_doing(end):
    argument = "waits" if end == "is killed" else end
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, argument], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    if end == "is killed":
        assert all(map(alive, pids))
        process.kill()
    began = time.monotonic()
    process.communicate(timeout=patience(20))
    assert wait_until(lambda: not any(map(alive, pids)), 5)
    assert time.monotonic() - began < patience(10)
    assert process.returncode == {"finishes": 0, "fails": 1, "is killed": -signal.SIGKILL}[end]


def test_scheduler_signals_do_not_reach_the_workers():
    workers = Workers(make, itertools.count(), 1)
    pid = next(workers)[0].item()
    for signum in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, signum)
    assert [next(workers)[0].item() for _ in range(4)] == [pid] * 4
    workers.close()
    assert not alive(pid)
