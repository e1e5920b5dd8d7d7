"""Fixtures for all tests: tools called inside of the process of the tests, which saves the start of one (real ones:
tests/tools/processes.py), and a browser."""

import os
import runpy
import signal
import sys
from collections.abc import Callable

import pytest

from tests.browser import browser, page  # noqa: F401
from tests.tools.processes import ROOT

# The tests start a hundred processes; without bytecode each of them would compile the package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A script that runs the tests in the background has them ignore Ctrl-C, which they send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def call(monkeypatch, capfd) -> Callable[..., str]:
    """``call("compare.py", *arguments, status=0)``: what a tool writes to the terminal; it must exit with `status`."""

    def run(tool: str, *arguments: object, status: int = 0) -> str:
        monkeypatch.setenv("LOCAL_RANK", "")  # so that what the tool sets is undone afterwards
        monkeypatch.delenv("LOCAL_RANK")
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        out = capfd.readouterr()
        assert (ended.value.code or 0) == status, out.out + out.err
        assert "Traceback" not in out.err
        return out.out + out.err

    return run
