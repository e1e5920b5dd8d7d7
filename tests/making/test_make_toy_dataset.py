"""The command that writes the toy data set."""

import pathlib
import subprocess
import sys

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "make_toy_dataset.py"


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def test_command(tmp_path):
    numbers = "--videos 2 --val-videos 1 --test-videos 1 --frames 3 --size 32 48 --classes 4 --seed 5".split()
    done = run(tmp_path / "toy", *numbers)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "toy" / "train.txt").read_text() == "train_000\ntrain_001\n"
    assert len(list((tmp_path / "toy" / "data" / "val_000" / "origin").iterdir())) == 3
    assert run(tmp_path / "toy", *numbers).returncode == 0  # there already
    done = run(tmp_path / "toy", *numbers, "--seed", 6)
    assert done.returncode == 2 and "--force" in done.stderr and "Traceback" not in done.stderr
