"""Two processes of ``tools/dist_train.sh`` train what one does, and stop together whichever of them has a reason to."""

import pathlib
import re

import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG
from tests.tools.processes import DIST, finish

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "toy.py"
    path.write_text(CONFIG)
    return path


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "latest.pth")["state_dict"]


def test_accumulated_batches_of_two_processes_are_the_big_batch_of_one(tmp_path, config):
    """Four clips per update: the same ones, and the mean of their gradients."""
    exact = ["model.dropout=0.0", "model.batch_norm=False", "optimizer.type=SGD", "optimizer.lr=0.1"]
    runs = {
        "two": (2, "data.samples_per_gpu=1", "gradient_accumulation=2"),
        "one": (0, "data.samples_per_gpu=4", "gradient_accumulation=1"),
    }
    for name, (processes, *sharing) in runs.items():
        command = [*DIST, config, processes, "--work-dir", tmp_path / name, "--seed", 3, "--options"]
        finish([*command, *exact, *sharing], tmp_path)
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    start = tmp_path / "start"
    finish([*DIST, config, 0, "--work-dir", start, "--seed", 4, "--options", *exact, *runs["one"][1:]], tmp_path)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)
    assert (weights(start)["head.weight"] - one["head.weight"]).abs().max() > 1e-2


def test_two_processes_without_a_seed_agree_on_one(tmp_path, config):
    """Both draw their samples by the seed that the main process drew; else a run with it would end elsewhere."""
    for name, seed in (("drawn", []), ("given", ["--seed"])):
        if seed:
            seed.append(read_checkpoint(tmp_path / "drawn" / "latest.pth")["meta"]["seed"])
        finish([*DIST, config, 2, "--work-dir", tmp_path / name, *seed], tmp_path)
    drawn, given = weights(tmp_path / "drawn"), weights(tmp_path / "given")
    assert all(torch.equal(value, given[name]) for name, value in drawn.items())


def test_a_loss_that_is_not_a_number_in_one_process_stops_both(tmp_path, config):
    options = ["data.samples_per_gpu=1", "data.train.nan_at=3", "checkpoint_config.interval=1"]
    output = finish([*DIST, config, 2, "--work-dir", tmp_path, "--seed", 0, "--options", *options], tmp_path, status=2)
    assert "Traceback" not in output and output.count("is not finite") == 1
    stopped = int(re.search(r"iteration (\d+): decode\.loss_seg, loss is not finite", output)[1])
    saved = {int(path.stem[5:]) for path in tmp_path.glob("iter_*.pth")}
    assert saved == set(range(1, stopped))


def test_a_clip_that_one_process_cannot_read_stops_both(tmp_path, config):
    options = ["data.samples_per_gpu=1", "data.train.fails_at=3", "data.workers_per_gpu=1"]
    output = finish([*DIST, config, 2, "--work-dir", tmp_path, "--seed", 0, "--options", *options], tmp_path, status=2)
    assert "Traceback" not in output and output.count("video 3 cannot be read") == 1
