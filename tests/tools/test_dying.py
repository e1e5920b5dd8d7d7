"""Trainings of two processes of which one dies or cannot go on, or whose launcher dies: real processes, real kills."""

import os
import pathlib
import re
import signal
import sys
import time

import pytest

from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG
from tests.tools.processes import (
    ROOT,
    TRAIN,
    descendants,
    finish,
    finish_all,
    finish_two,
    launch,
    patience,
    read_until,
    running,
    wait_until,
)

LAUNCH = [sys.executable, str(ROOT / "tools" / "launch.py"), "43412", "2", TRAIN[1]]  # as in tools/processes.sh
FOR_EVER = ["--launcher=pytorch", "--options", "runner.max_iters=1000000", "checkpoint_config.interval=1000000"]

RANK_ONE_FAILS = """
import os
from mmseg.errors import DataError
from mmseg.registry import DATASETS
from tests.engine.toy import ToyClips

@DATASETS.register_module()
class FailsInRankOne(ToyClips):
    metric_names = ("mIoU",)

    def __init__(self, where: str, test_mode: bool = False) -> None:
        super().__init__()
        if where == "building":
            self.fail()
        self.where = where

    def score_names(self, options):
        return self.metric_names

    def clip(self, *arguments):
        if self.where == "loading" and len(self.seen) == 6:  # three iterations of two clips
            self.fail()
        return super().clip(*arguments)

    def fail(self):
        if os.environ.get("RANK") == "1":
            raise DataError("clips/7.png: unreadable", "a picture", "copy it again")
"""


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "toy.py"
    path.write_text(CONFIG)
    return path


def ranks_of(launcher: int) -> list[int]:
    """The two training processes, by rank."""
    found = {}
    for pid in descendants(launcher):
        variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        rank = [v for v in variables if v.startswith(b"RANK=")]
        if rank and parent == launcher:
            found[int(rank[0][5:])] = pid
    return [found[rank] for rank in sorted(found)]


def gone(pids: list[int]) -> bool:
    states = []
    for pid in pids:
        try:
            states.append(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
        except OSError:
            continue
    return all(state == "Z" for state in states)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_within_seconds_and_with_one_message(tmp_path, config, victim):
    command = [*LAUNCH, config, "--work-dir", tmp_path / "w", *FOR_EVER, "data.workers_per_gpu=1"]
    with running(command, tmp_path) as process:
        read_until(process, r"Iter \[6/")
        everyone = descendants(process.pid)
        os.kill(ranks_of(process.pid)[victim], signal.SIGKILL)
        began = time.monotonic()
        output, _ = process.communicate(timeout=patience(10))
        assert time.monotonic() - began < patience(5)
        wait_until(lambda: gone(everyone), 5)
    messages = [line for line in output.splitlines() if "INFO" not in line]
    assert messages == [
        f"process {victim} was killed by SIGKILL, perhaps because memory ran out; all processes have been stopped"
    ]
    assert process.returncode == 137


@pytest.mark.slow
def test_processes_stop_with_their_launcher_and_save(tmp_path, config):
    command = [*LAUNCH, config, "--work-dir", tmp_path / "w", *FOR_EVER, "data.workers_per_gpu=1"]
    with running(command, tmp_path) as process:
        read_until(process, r"Iter \[6/")
        everyone = descendants(process.pid)
        try:
            process.kill()
            output, _ = process.communicate(timeout=patience(10))
            wait_until(lambda: gone(everyone), 10)
        finally:
            for pid in everyone:
                if not gone([pid]):
                    os.kill(pid, signal.SIGKILL)
    # not said where the other rank notices first, and the main process, which has the log, stops because that one does
    assert output.count("the launcher has gone") <= 1 and "Traceback" not in output
    done = int(re.search(r"SIGTERM: stopped after iteration (\d+), which is saved", output)[1])
    assert read_checkpoint(tmp_path / "w" / "latest.pth")["meta"]["iter"] == done


@pytest.mark.slow
def test_a_killed_data_worker_ends_all_with_one_message(tmp_path, config):
    arguments = [config, "--work-dir", tmp_path / "w", *FOR_EVER, "data.workers_per_gpu=2"]
    both = launch(ROOT / "tools" / "train.py", *arguments, merged=True)
    read_until(both[0], r"Iter \[6/")
    workers = [pid for process in both for pid in descendants(process.pid)]
    os.kill(descendants(both[1].pid)[0], signal.SIGKILL)
    statuses, said, _ = zip(*finish_all(both))
    wait_until(lambda: gone(workers), 5)
    output = "".join(said)
    assert statuses == (1, 1) and "Traceback" not in output
    assert re.findall(r".*Error: .*", output) == re.findall(
        r"\[rank 1\] DeadWorkerError: data worker \d .*SIGKILL.*", output
    )
    assert output.count("DeadWorkerError") == 1 and "/dev/shm" in output and "workers_per_gpu" in output
    assert read_checkpoint(tmp_path / "w" / "latest.pth")["meta"]["iter"] >= 6  # nothing is lost


@pytest.mark.slow
@pytest.mark.parametrize("where", ["building", "loading"])
def test_data_that_one_process_cannot_read_end_both_with_one_message(tmp_path, config, where):
    (tmp_path / "failing.py").write_text(RANK_ONE_FAILS)
    text = CONFIG.replace('"tests.engine.toy"', '"tests.engine.toy", "failing"')
    config.write_text(text.replace('dict(type="ToyClips")', f'dict(type="FailsInRankOne", where="{where}")'))
    command = [config, "--work-dir", "w", "--options", "data.workers_per_gpu=1"]
    output = finish_two("train.py", tmp_path, *command, status=2, python_path=str(tmp_path))
    assert output.count("clips/7.png: unreadable") == 1 and "Traceback" not in output
    latest = tmp_path / "w" / "latest.pth"
    assert latest.exists() == (where == "loading")
    assert where == "building" or read_checkpoint(latest)["meta"]["iter"] == 3


@pytest.mark.slow
def test_validation_data_that_one_process_cannot_read_are_done_without_in_both(tmp_path, config):
    (tmp_path / "failing.py").write_text(RANK_ONE_FAILS)
    text = CONFIG.replace('"tests.engine.toy"', '"tests.engine.toy", "failing"')
    config.write_text(text + 'data["val"] = dict(type="FailsInRankOne", where="building")\n')
    output = finish_two("train.py", tmp_path, config, "--work-dir", "w", python_path=str(tmp_path))
    assert len(re.findall("training without validation, data.val cannot be used: .*clips/7.png", output)) == 1
    assert "Iter [6/6]" in output


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_in_one_process_stops_both(tmp_path, config):
    options = ["data.samples_per_gpu=1", "data.train.nan_at=3", "checkpoint_config.interval=1"]
    command = [config, "--work-dir", tmp_path, "--seed", 0, "--options", *options]
    output = finish_two("train.py", tmp_path, *command, status=2)
    assert "Traceback" not in output and output.count("is not finite") == 2  # a launcher would end one meanwhile
    stopped = int(re.search(r"iteration (\d+): decode\.loss_seg, loss is not finite", output)[1])
    saved = {int(path.stem[5:]) for path in tmp_path.glob("iter_*.pth")}
    assert saved == set(range(1, stopped))


@pytest.mark.slow
def test_a_mistake_that_all_processes_meet_is_told_once(tmp_path, config):
    agreed = finish_two("train.py", tmp_path, config, "--work-dir", "w", "--options", "optimizer.type=Adamm", status=2)
    assert agreed.count("Adamm") == 1 and "Traceback" not in agreed
    before_they_meet = finish([*LAUNCH, "missing.py", "--launcher=pytorch"], tmp_path, status=2, seconds=20)
    assert before_they_meet.count("missing.py does not exist") == 1 and "Traceback" not in before_they_meet
    assert "all processes have been stopped" not in before_they_meet  # the message says all


def test_one_process_says_that_it_stops(tmp_path, config):
    with running([*TRAIN, config, "--work-dir", tmp_path / "w", *FOR_EVER[1:]], tmp_path) as process:
        read_until(process, r"Iter \[6/")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=patience(10))
    assert process.returncode == 130 and "SIGINT: stopped after iteration" in output and "Traceback" not in output
