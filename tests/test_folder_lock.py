"""Folders with one owner, and the locks by which a living process is told from a dead one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg import locks
from mmseg.errors import WriteError
from mmseg.folder_lock import FolderLock
from mmseg.parent import is_alive
from tests.tools.processes import patience, python


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


HOLD = """
import os, sys, time
from mmseg.errors import WriteError
from mmseg.folder_lock import FolderLock
try:
    lock = FolderLock(sys.argv[1], "a training")
except WriteError as error:
    print(error, flush=True)
    sys.exit(2)
print("held, before:", lock.previous and lock.previous["pid"], flush=True)
if "fork" in sys.argv:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
if "end" in sys.argv:
    lock.release()
    sys.exit()
time.sleep(60)
"""


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path):
    with python(HOLD, tmp_path) as first:
        assert first.stdout.readline() == "held, before: None\n"
        with python(HOLD, tmp_path, "end") as second:
            out, _ = second.communicate(timeout=patience(20))
        assert second.returncode == 2
        assert f"in use by a training (process {first.pid} on {os.uname().nodename}, since 20" in out
        assert "what to do" in out
    with python(HOLD, tmp_path, "end") as third:  # the first has been killed
        assert third.communicate(timeout=patience(20))[0] == f"held, before: {first.pid}\n"
    assert names(tmp_path) == []
    with FolderLock(tmp_path, "a training") as lock:
        assert lock.previous is None


def test_a_killed_owners_child_does_not_hold_the_folder(tmp_path):
    with python(HOLD, tmp_path, "fork") as process:
        process.stdout.readline()
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        with FolderLock(tmp_path, "a training") as lock:
            assert lock.previous["pid"] == process.pid
        os.kill(child, signal.SIGKILL)


def test_of_many_heirs_of_a_dead_owner_one_wins(tmp_path):
    with python(HOLD, tmp_path) as dead:
        dead.stdout.readline()
    with contextlib.ExitStack() as stack:
        heirs = [stack.enter_context(python(HOLD, tmp_path)) for _ in range(6)]
        said = [heir.stdout.readline() for heir in heirs]
    assert said.count(f"held, before: {dead.pid}\n") == 1
    assert sum("in use by" in line for line in said) == 5


COUNT = """
import sys, pathlib
from mmseg.errors import WriteError
from mmseg.folder_lock import FolderLock
count = pathlib.Path(sys.argv[1]) / "count"
for _ in range(100):
    while True:
        try:
            lock = FolderLock(sys.argv[1], "counting")
            break
        except WriteError as error:
            assert "in use by" in str(error), error
    with lock:
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_never_two_at_once(tmp_path):
    (tmp_path / "count").write_text("0")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(COUNT, tmp_path)) for _ in range(4)]
        for process in processes:
            _, errors = process.communicate(timeout=patience(40))
            assert process.returncode == 0, errors
    assert (tmp_path / "count").read_text() == "400"


def test_the_same_process_is_refused_too_and_an_error_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path, "a training"):
        with pytest.raises(WriteError, match=f"process {os.getpid()}"):
            FolderLock(tmp_path, "a training")
        raise KeyError
    with FolderLock(tmp_path, "a training"):
        pass
    assert names(tmp_path) == []


def test_the_owner_removes_links_that_a_dead_one_left(tmp_path):
    """Where locks stay on one machine, those of the last minute might be another machine's."""
    folder, table = tmp_path / "work", tmp_path / "mounts"
    folder.mkdir()
    for options, left in (("nolock", [".latest.pth.0.writing", ".lock"]), ("vers=4.2", [".lock"])):
        (folder / ".latest.pth.0.writing").unlink(missing_ok=True)
        (folder / ".latest.pth.0.writing").symlink_to("iter_4.pth")
        table.write_text(f"30 22 0:41 / {folder} rw - nfs server:/data rw,{options}\n")
        with FolderLock(folder, "a training", table) as lock:
            lock.sweep()
            assert names(folder) == left


def test_a_damaged_lock_file_is_no_obstacle(tmp_path):
    for text in ("", "{", "[]", '{"host": 3}'):
        (tmp_path / ".lock").write_text(text)
        with FolderLock(tmp_path, "a training") as lock:
            assert lock.previous is None


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:41 / /data rw - nfs4 server:/data rw,vers=4.2,local_lock=none
31 22 0:42 / /old\\040disk rw - nfs server:/old rw,vers=3,nolock,local_lock=all
32 22 0:43 / /scratch rw - lustre mgs:/x rw,localflock
"""


def test_mount_options_tell_whether_a_lock_holds_on_other_machines(tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    for path, seen in (("/home/a", True), ("/data/a", True), ("/old disk/a", False), ("/scratch/a/b", False)):
        assert locks.seen_by_other_machines(path, tmp_path / "mounts") is seen, path
    assert locks.seen_by_other_machines(tmp_path)


def test_living_and_dead_processes():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert is_alive(os.getpid()) and is_alive(1) and not is_alive(process.pid)


def test_where_locks_stay_on_one_machine_the_owner_on_another_is_believed(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    table = f"30 22 0:41 / {folder} rw - nfs server:/data rw,{{}}\n"
    record = {"work": "a training", "host": "another-machine", "pid": 1, "since": "2026-01-01 12:00:00"}
    (folder / ".lock").write_text(json.dumps(record))
    (tmp_path / "mounts").write_text(table.format("vers=3,nolock"))
    with pytest.raises(WriteError, match="process 1 on another-machine, since 2026-01-01 12:00:00") as caught:
        FolderLock(folder, "a training", tmp_path / "mounts")
    assert f"remove {folder}/.lock" in caught.value.action
    (tmp_path / "mounts").write_text(table.format("vers=4.2"))
    with FolderLock(folder, "a training", tmp_path / "mounts") as lock:
        assert lock.previous == record
    (folder / ".lock").write_text(json.dumps({**record, "host": os.uname().nodename}))
    (tmp_path / "mounts").write_text(table.format("vers=3,nolock"))
    with FolderLock(folder, "a training", tmp_path / "mounts"):  # on this machine the lock tells all
        pass
