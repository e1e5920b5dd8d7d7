"""``tools/compare.py``: the scores that each run has, side by side."""

import json
import subprocess
import sys

from tests.tools.processes import ROOT, environment


def compare(folder, *runs: str, status: int = 0) -> str:
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), *runs]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_a_table_of_runs(tmp_path):
    reports = {
        "a": {"run": {}, "mIoU": 0.5, "Acc_class": 0.1, "FWIoU": 0.25, "VC8": None, "mmseg/mIoU": 0.2, "per_class": []},
        "b": {"run": {}, "J&F": 0.875, "mIoU": 0.125},
        "c": {"mIoU": 0.5},
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    lines = compare(tmp_path, "first=a.json", "b.json").splitlines()
    assert lines[0].split() == ["run", "mIoU", "weighted", "IoU", "VC8", "J&F"]
    assert lines[2].split() == ["first", "50.00", "25.00", "nan", "-"]
    assert lines[3].split() == ["b.json", "12.50", "-", "-", "87.50"]
    assert "c.json: no scores in it" in compare(tmp_path, "c.json", status=2)
    assert "gone.json" in compare(tmp_path, "gone.json", status=2)
