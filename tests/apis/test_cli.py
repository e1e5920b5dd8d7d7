"""What the command-line tools share: overrides, and errors without tracebacks."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg.apis.cli import add_options, number, run
from mmseg.errors import DataError
from mmseg.sections import Seed
from mmseg.values import Fraction, PositiveInt
from tests.tools.processes import finish_all, launch

ROOT = Path(__file__).parents[2]


def parse(*arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(["--options", *arguments]).options


def test_values_of_options():
    assert parse("a=1", "b.c=2.5", "d=[-9,-6,-3]", "e=(64, 32)", "f=None", "g=True", "h=/my data/x=1", "i=x,y") == {
        "a": 1, "b.c": 2.5, "d": [-9, -6, -3], "e": (64, 32),
        "f": None, "g": True, "h": "/my data/x=1", "i": ["x", "y"],
    }  # fmt: skip


def test_blanks_inside_of_values_stay():
    assert parse("a=[my set, /x (old)/b]", "b=[ [0, 0, 0], ( 1,2 ) ]", "c=/x (old)/y z", "d= [1] ", "e='p q',r") == {
        "a": ["my set", "/x (old)/b"], "b": [[0, 0, 0], (1, 2)], "c": "/x (old)/y z", "d": [1], "e": ["p q", "r"],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a", "=1", "a=(1,2"])
def test_unreadable_option_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(text)
    assert leaving.value.code == 2 and text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [(PositiveInt, "3", 3), (Fraction, "0.5", 0.5), (Fraction, "1", 1.0), (int, "-2", -2)],
)
def test_numbers_in_range(annotation, text, value):
    assert number(annotation)(text) == value


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (PositiveInt, "0", "0 is not a number above 0"),
        (PositiveInt, "1.5", "'1.5' is not an integer"),
        (PositiveInt, "many", "'many' is not an integer"),
        (Fraction, "half", "'half' is not a number"),
        (Fraction, "nan", "nan is not a finite number"),
        (Seed, "9" * 23, f"{'9' * 23} is not a number of at most {2**63 - 1}"),
    ],
)
def test_numbers_out_of_range(annotation, text, message):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        number(annotation)(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("benchmark.py", "local_configs/toy/cffm.b0.py --size 0 0", "argument --size: 0 is not"),
        ("train.py", f"local_configs/toy/cffm.b0.py --seed {'9' * 23}", "argument --seed: 9"),
        ("train.py", "local_configs/toy/cffm.b0.py --gpu-ids 99", "GPU number 99"),
        ("train.py", "local_configs/toy/cffm.b0.py --options log_level=FOO", "log_level = 'FOO'"),
    ],
)
def test_wrong_numbers_of_the_tools_are_one_message(tool, arguments, message, call, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert message in call(tool, *arguments.split(), status=2)


def fail() -> None:
    raise DataError("no such video: x", "a video", "check the path")


@pytest.mark.parametrize(
    "allocate",
    [lambda: bytes(2**62), lambda: np.zeros(2**62, np.uint8), lambda: torch.empty(2**46)],
    ids=["python", "numpy", "torch"],
)
def test_short_memory_is_one_message(allocate, capsys):
    with pytest.raises(SystemExit) as leaving:
        run(allocate)
    told = capsys.readouterr().err
    assert leaving.value.code == 2 and "SegError: out of memory (" in told and "lower data.samples_per_gpu" in told


TALKATIVE = "from mmseg.apis.cli import run\nrun(lambda: print('x' * 100_000))"
LATE = "from mmseg.apis.cli import run\nrun(lambda: print('few words'))"


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("code", [TALKATIVE, LATE], ids=["at once", "at the end"])
def test_a_reader_that_has_gone_or_a_full_disk_is_no_traceback(code, buffered):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "" if buffered else "1"}
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run([sys.executable, "-c", code], env=env, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (128 + signal.SIGPIPE, "")
    with open("/dev/full", "w") as full:
        told = subprocess.run([sys.executable, "-c", code], env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert told.returncode == 2 and "Traceback" not in told.stderr
    assert told.stderr.startswith("WriteError: the standard output: cannot be written, the disk is full")


@pytest.mark.parametrize(("main", "status"), [(fail, 2), (lambda: None, 0), (lambda: 5, 5)])
def test_exit_status(main, status, capsys):
    with pytest.raises(SystemExit) as leaving:
        run(main)
    assert leaving.value.code == status
    if main is fail:
        assert capsys.readouterr().err.endswith(
            "DataError: no such video: x\n  expected: a video\n  what to do: check the path\n"
        )


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("top_level.txt", "mmseg\n", True),
        ("top_level.txt", "mmsegmore\n", False),
        ("RECORD", "mmseg/core.py,,\n", True),
        ("RECORD", "other/a.py,,\nmmseg/__init__.py,sha256=x,5\n", True),
        ("RECORD", "other/mmseg/__init__.py,,\n", False),
    ],
)
def test_another_package_of_this_name_is_told(file, text, told, tmp_path, monkeypatch, capsys):
    """An installed one, as pip leaves it: its name stands in a file beside it, or the files that it has brought do."""
    folder = tmp_path / "mmsegmentation-1.2.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mmsegmentation\nVersion: 1.2.2\n")
    (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        run(lambda: 0)
    assert ("mmsegmentation also installs a package named 'mmseg'" in capsys.readouterr().err) == told


@pytest.mark.parametrize("tool", sorted(p.name for p in (ROOT / "tools").glob("*.py") if p.name != "launch.py"))
def test_every_tool_answers_help(tool, call):
    assert "usage" in call(tool, "--help")


HELP = """
import contextlib, io, itertools, runpy, sys
for tool, words in itertools.product(sys.argv[1:], (["--help"], [], ["no_such_file.py"])):
    sys.argv, told = [tool, *words], io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        runpy.run_path(tool, run_name="__main__")
    answer = told.getvalue()
    assert ("no_such_file.py" if "no_such_file.py" in words else "usage") in answer, (tool, answer)
    assert "torch" not in sys.modules, (tool, words)
"""


def test_help_and_mistakes_do_not_wait_for_pytorch():
    """Importing it takes seconds."""
    tools = [ROOT / "tools" / f"{name}.py" for name in ("train", "print_config", "compare", "analyze_logs")]
    subprocess.run([sys.executable, "-c", HELP, *tools], check=True)


def test_other_processes_leave_the_first_the_time_to_tell_a_mistake():
    """The launcher then ends them, and nobody reads it twice."""
    program = (
        "import sys, time; from mmseg.apis.cli import run; from mmseg.errors import ConfigError\n"
        "def main():\n"
        "    print(time.monotonic(), flush=True)\n"
        "    raise ConfigError('found', 'expected', 'to do')\n"
        "run(main)"
    )
    both = launch(program)
    met = [float(next(process.stdout)) for process in both]
    (first, *_), (second, *_) = finish_all(both)
    assert (first, second) == (2, 2) and time.monotonic() - met[1] >= 1.5
