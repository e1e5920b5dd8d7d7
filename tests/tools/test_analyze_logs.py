"""``tools/analyze_logs.py``: what trainings wrote, as a table and as curves."""

import json

import cv2
import pytest

from mmseg.engine.log_files import read_run, smoothed
from tests.engine.toy_training import trainer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"seed": 1, "start": 0}, *({"mode": "train", "iter": i, "loss": 10.0 - i, "time": 0.5} for i in (2, 4, 6))]
    lines += [{"mode": "val", "iter": 4, "mIoU": 0.75, "VC8": None}, {"mode": "val", "iter": 6, "mIoU": 0.5}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.log.json").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"mode": "tr')
    later = [{"seed": 1, "start": 4}, {"mode": "train", "iter": 6, "loss": 1.5, "time": 1.5}]
    (tmp_path / "run" / "2.log.json").write_text("".join(json.dumps(line) + "\n" for line in later))
    return tmp_path


def test_a_resumed_run_is_one_curve(folder):
    run = read_run("run")
    assert run.curve("loss") == ([2, 4, 6], [8.0, 6.0, 1.5])
    assert run.curve("mIoU") == ([4], [0.75])  # the later one was of what is forgotten
    assert run.curve("VC8") == ([], [])
    assert run.keys == ["mIoU", "VC8", "loss", "time"]
    assert smoothed([1, 3, 5, 7], 2) == [1, 2, 4, 6]


def test_table_and_picture(folder, call):
    trainer(folder / "toy").run()
    output = call("analyze_logs.py", "first=run", "toy", "--keys", "loss", "mIoU", "--smooth", 2, "--out", "a/b.png")
    header, _, first, toy = output.splitlines()[:4]
    assert header.split()[:4] == ["run", "iterations", "s/iter", "loss"]
    assert first.split() == ["first", "6", "0.833333", "1.5", "1.5", "6", "0.75", "0.75", "4"]
    assert toy.split()[:2] == ["toy", "6"] and toy.split()[-1] == "-"
    height, width = cv2.imread("a/b.png").shape[:2]
    assert width > 2 * height  # two panels
    call("analyze_logs.py", "run/1.log.json")
    assert cv2.imread("curves.png").shape[1] > 500
    assert call("analyze_logs.py", "run", "--list") == "run: mIoU, VC8, loss, time\n"


def test_decay_is_better_when_lower_and_names_may_hold_an_equals_sign(folder, call):
    """J-Decay as the training itself sees it; ``=`` in a path, with and without a name before it."""
    values = [{"mode": "val", "iter": i, "J-Decay": 0.1 * v} for i, v in ((2, 3), (4, 1), (6, 2))]
    (folder / "lr=0.1").mkdir()
    (folder / "lr=0.1" / "1.log.json").write_text("".join(json.dumps(line) + "\n" for line in values))
    output = call("analyze_logs.py", "lr=0.1", "slow=lr=0.1", "--keys", "J-Decay")
    header, _, *rows = output.splitlines()[:4]
    assert "lowest J-Decay" in header and [row.split()[0] for row in rows] == ["lr=0.1", "slow"]
    assert all(row.split()[-2:] == ["0.1", "4"] for row in rows)


def test_mistakes(folder, call):
    (folder / "empty").mkdir()
    (folder / "bad.log.json").write_text('{"mode": "train", "iter": 1}\nno JSON\n{"mode": "train", "iter": 2}\n')
    (folder / "other.json").write_text("[1]")
    for arguments, message in [
        (["gone"], "gone cannot be read"),
        (["empty"], "empty: no log in it"),
        (["bad.log.json"], "bad.log.json, line 2"),
        (["other.json"], "other.json, line 1: no entry of a log"),
        (["run", "--keys", "mIoUs"], "did you mean 'mIoU'"),
        (["run", "--out", "a.pdf"], "does not end in .png"),
        (["a=run", "a=run/1.log.json"], "2 runs are called a"),
        (["run", "run/"], "2 runs are called run"),
    ]:
        assert message in call("analyze_logs.py", *arguments, status=2)
    assert not list(folder.glob("*.png"))
