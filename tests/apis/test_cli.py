"""What the command-line tools share: overrides, and errors without tracebacks."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg.apis.cli import add_options, run
from mmseg.errors import DataError
from tests.tools.processes import patience

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


@pytest.mark.parametrize("text", ["a", "=1", "a=(1,2"])
def test_unreadable_option_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(text)
    assert leaving.value.code == 2 and text in capsys.readouterr().err


def fail() -> None:
    raise DataError("no such video: x", "a video", "check the path")


@pytest.mark.parametrize(("main", "status"), [(fail, 2), (lambda: None, 0), (lambda: 5, 5)])
def test_exit_status(main, status, capsys):
    with pytest.raises(SystemExit) as leaving:
        run(main)
    assert leaving.value.code == status
    if main is fail:
        assert capsys.readouterr().err.endswith(
            "DataError: no such video: x\n  expected: a video\n  what to do: check the path\n"
        )


@pytest.mark.parametrize("tool", sorted(p.name for p in (ROOT / "tools").glob("*.py") if p.name != "launch.py"))
def test_every_tool_answers_help(tool):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / tool, "--help"], capture_output=True, text=True, timeout=patience(40)
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
