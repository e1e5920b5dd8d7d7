"""``tools/demo.py`` as a process: what it says, whom it listens to, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.tools.processes import ROOT, patience, read_until, running

TOOL = [sys.executable, ROOT / "tools" / "demo.py", "--device", "cpu"]


def folders(pid: int) -> list[Path]:
    """The temporary ones of a process."""
    return list(Path(tempfile.gettempdir()).glob(f"mmseg-demo-{pid}-*"))


def test_from_the_start_to_ctrl_c(tmp_path):
    with running([*TOOL, "--port", "0"], tmp_path) as process:
        text = read_until(process, r"http://127\.0\.0\.1:\d+/")
        address = re.search(r"http://127\.0\.0\.1:\d+/", text)[0]
        state = json.load(urllib.request.urlopen(f"{address}api/state", timeout=patience(20)))
        assert "toy/gsfm_stage3.py" in state["configs"] and not any("_base_" in name for name in state["configs"])
        assert state["checkpoints"] == [] and state["device"] == "cpu"
        assert len(folders(process.pid)) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=patience(20)) == 128 + signal.SIGINT
    assert not folders(process.pid)


def test_other_addresses_are_warned_of_and_missing_folders_refused(call, caplog):
    out = call("demo.py", "--checkpoints", "gone", "--device", "cpu", status=2)
    assert "gone does not exist" in out
    out = call("demo.py", "--host", "203.0.113.1", "--port", 0, "--device", "cpu", status=2)  # of no machine
    assert "without a password" in caplog.text and "an address of this machine" in out
    assert not folders(os.getpid())
