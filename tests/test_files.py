"""Files that appear complete or not at all, whatever happens to their writer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from mmseg.errors import WriteError
from mmseg.files import (
    UNFINISHED,
    NewFile,
    append_text,
    make_folder,
    sweep,
    write_bytes,
    write_json,
    write_text,
)
from tests.tools.processes import patience, python

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_appears_at_the_end_with_the_usual_mode(tmp_path):
    before = os.umask(0o027)
    try:
        with NewFile(tmp_path / "new" / "folder" / "a.bin") as file:
            file.write(b"one")
            file.write(memoryview(b"two"))
            assert not (tmp_path / "new" / "folder" / "a.bin").exists()
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "folder" / "a.bin").read_bytes() == b"onetwo"
    assert stat.S_IMODE((tmp_path / "new" / "folder" / "a.bin").stat().st_mode) == 0o640
    assert names(tmp_path / "new" / "folder") == ["a.bin"]


def test_text_and_json(tmp_path):
    write_text(tmp_path / "a.txt", "größer\n")
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "größer\n"
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    for error in (KeyError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), NewFile(tmp_path / "a") as file:
            file.write(b"new")
            raise error
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_the_data_are_on_the_disk_before_the_name_is(tmp_path):
    """Watches the calls of the interpreter to the system, with what the file holds at each."""
    calls = []

    def watch(frame, event, function):
        if event == "c_call" and function in (os.fsync, os.replace):
            calls.append((function.__name__, [path.stat().st_size for path in tmp_path.iterdir()]))

    sys.setprofile(watch)
    try:
        with NewFile(tmp_path / "a") as file:
            file.write(b"x" * 1000)
            file.write(b"y" * 234)
    finally:
        sys.setprofile(None)
    assert calls[:2] == [("fsync", [1234]), ("replace", [1234])]
    assert [name for name, _ in calls[2:]] == ["fsync"]  # the folder, so that the name lasts


def test_two_writers_of_one_name_do_not_mix(tmp_path):
    with NewFile(tmp_path / "a") as first, NewFile(tmp_path / "a") as second:
        assert first.temporary != second.temporary
        first.write(b"1" * 10)
        second.write(b"2" * 20)
    assert (tmp_path / "a").read_bytes() == b"1" * 10  # the one that finished last, whole
    assert names(tmp_path) == ["a"]


def test_a_library_can_write_by_name(tmp_path):
    with NewFile(tmp_path / "a.png", suffix=".png") as file:
        assert file.temporary.suffix == ".png"
        file.temporary.write_bytes(b"by name")
    assert (tmp_path / "a.png").read_bytes() == b"by name" and names(tmp_path) == ["a.png"]


FILL_UP = """
import resource, sys
from mmseg.errors import WriteError
from mmseg.files import NewFile, append_text
resource.setrlimit(resource.RLIMIT_FSIZE, (5500, 5500))
try:
    with NewFile(sys.argv[1], "or lower its size") as file:
        for _ in range(10):
            try:
                file.write(b"n" * 1000)
            except WriteError:  # as libraries do
                pass
        raise RuntimeError("what a library made of it")
except WriteError as error:
    print(error)
try:
    for n in range(10):
        append_text(sys.argv[2], f"{n}" * 999 + "\\n")
except WriteError as error:
    print(error)
"""


def test_a_full_disk_is_told_as_it_is_and_leaves_nothing(tmp_path):
    write_text(tmp_path / "a", "old")
    with python(FILL_UP, tmp_path / "a", tmp_path / "log") as process:
        out, errors = process.communicate(timeout=patience(40))
    assert process.returncode == 0, errors
    first, second = out.split(f"{tmp_path}/")[1:]
    assert first.startswith("a: cannot be written, the file is larger than allowed here (File too large)")
    assert "or lower its size" in first
    assert second.startswith("log: cannot be written, the file is larger")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a", "log"]
    assert [len(line) for line in (tmp_path / "log").read_text().splitlines()] == [999] * 5  # whole lines


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_no_space_left_is_named():
    with pytest.raises(WriteError, match=r"/dev/full: cannot be written, the disk is full \(No space left on device\)"):
        append_text("/dev/full", "line\n")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/a", "a part of the path is a file"),
        ("folder", "there is a folder of this name"),
        ("pipe", "it is a device or a pipe"),
        ("a" * 300, "the name is too long"),
        ("a\0b", "null"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, place, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    with pytest.raises(WriteError, match=reason) as caught:
        write_bytes(tmp_path / place, b"x")
    assert "\0" not in str(caught.value) and caught.value.action
    assert names(tmp_path) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="a part of the path is a file"):
        make_folder(tmp_path / "file" / "folder")
    with pytest.raises(WriteError, match="/proc/folder: cannot be written"):
        make_folder("/proc/folder")


# --- left-overs -------------------------------------------------------------------------------------------------------

WRITE_AND_WAIT = """
import os, sys, time
from mmseg.files import NewFile
file = NewFile(sys.argv[1])
file.write(b"half")
if "fork" not in sys.argv or os.fork() == 0:
    print("written", os.getpid(), flush=True)
time.sleep(60)
"""


def test_what_a_living_process_writes_is_left_alone_and_what_a_killed_one_left_is_removed(tmp_path):
    write_text(tmp_path / "a", "old")
    (tmp_path / ".hidden").touch()
    with NewFile(tmp_path / "mine") as mine, python(WRITE_AND_WAIT, tmp_path / "a") as process:
        assert process.stdout.readline() == f"written {process.pid}\n"
        (other,) = tmp_path.glob(f".a.*{UNFINISHED}")
        sweep(tmp_path)
        assert other.exists() and mine.temporary.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        sweep(tmp_path, "b")  # another name
        assert other.exists()
        sweep(tmp_path)
        assert not other.exists() and mine.temporary.exists()
    assert names(tmp_path) == [".hidden", "a", "mine"] and (tmp_path / "a").read_text() == "old"


def test_links_that_were_never_renamed(tmp_path):
    for name, age in (("old", 3600), ("new", 0)):
        link = tmp_path / f".latest.pth.{name}{UNFINISHED}"
        link.symlink_to("iter_4.pth")
        os.utime(link, (time.time() - age,) * 2, follow_symlinks=False)
    sweep(tmp_path)
    assert names(tmp_path) == [f".latest.pth.new{UNFINISHED}"]
    with NewFile(tmp_path / "mine") as mine:
        sweep(tmp_path, alone=True)
        assert names(tmp_path) == [mine.temporary.name]


def test_a_child_does_not_keep_alive_what_its_killed_parent_wrote(tmp_path):
    with python(WRITE_AND_WAIT, tmp_path / "a", "fork") as process:
        child = int(process.stdout.readline().split()[1])
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(child, 0)  # it lives
        sweep(tmp_path)
        left = names(tmp_path)
        os.kill(child, signal.SIGKILL)
    assert left == []


SWEEP_AND_WRITE = """
import sys, itertools
from mmseg.files import NewFile, sweep
for n in range(400):
    sweep(sys.argv[1])
    with NewFile(sys.argv[1] + "/" + sys.argv[2]) as file:
        file.write(b"x" * 100)
"""


def test_writers_and_sweepers_at_once(tmp_path):
    """A file must not be swept between its creation and its lock."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(SWEEP_AND_WRITE, tmp_path, f"f{n}")) for n in range(4)]
        for process in processes:
            _, errors = process.communicate(timeout=patience(40))
            assert process.returncode == 0, errors
    assert names(tmp_path) == ["f0", "f1", "f2", "f3"]


REPLACE_FOR_EVER = """
import sys, itertools
from mmseg.files import NewFile
for n in itertools.count(int(sys.argv[2])):
    with NewFile(sys.argv[1]) as file:
        for _ in range(50):
            file.write(b"%08d" % n * 1000)
    print(n, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    reached = 0
    for delay in (0.0, 0.003, 0.006):
        with python(REPLACE_FOR_EVER, tmp_path / "a", reached) as process:
            reached = [int(process.stdout.readline()) for _ in range(2)][-1]
            time.sleep(delay)
            process.kill()
        content = (tmp_path / "a").read_bytes()
        assert len(content) == 400_000 and content == content[:8] * 50_000 and int(content[:8]) >= reached
    sweep(tmp_path)
    assert names(tmp_path) == ["a"]
