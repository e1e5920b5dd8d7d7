"""``tools/compare.py``: the scores that each run has, side by side."""

import json


def test_a_table_of_runs(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reports = {
        "a": {"run": {}, "mIoU": 0.5, "Acc_class": 0.1, "FWIoU": 0.25, "VC8": None, "mmseg/mIoU": 0.2, "per_class": []},
        "b": {"run": {}, "J&F": 0.875, "mIoU": 0.125},
        "c": {"mIoU": 0.5},
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    lines = call("compare.py", "first=a.json", "b.json").splitlines()
    assert lines[0].split() == ["run", "mIoU", "weighted", "IoU", "VC8", "J&F"]
    assert lines[2].split() == ["first", "50.00", "25.00", "nan", "-"]
    assert lines[3].split() == ["b.json", "12.50", "-", "-", "87.50"]
    assert "c.json: no scores in it" in call("compare.py", "c.json", status=2)
    assert "gone.json" in call("compare.py", "gone.json", status=2)
