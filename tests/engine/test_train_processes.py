"""Two training processes: they train as one with all clips would, and score what they save."""

import json

import pytest
import torch
from mmengine.config import Config

from mmseg.engine.train import Trainer
from mmseg.weights import read_checkpoint
from tests.engine.toy import CONFIG, ToyClips, ToySegmentor
from tests.tools.processes import finish_all, launch

PROGRAM = """
import json, sys
import torch
from mmengine.config import Config
from mmseg import distributed
from mmseg.apis.cli import run
from mmseg.engine.train import Trainer
from tests.engine.toy import CONFIG, ToyClips, ToySegmentor

def main():
    distributed.init("pytorch")
    torch.manual_seed(5)
    plain = "plain" in sys.argv
    model = ToySegmentor(dropout=0.0, batch_norm=False) if plain else ToySegmentor()
    cfg = Config.fromstring(CONFIG, ".py")
    cfg.gradient_accumulation = 2
    seen = []

    def evaluate(model):
        seen.append([] if plain else [*model.norm.running_mean.tolist(), *model.norm.running_var.tolist()])
        return {"mIoU": 0.5}

    Trainer(cfg, model, ToyClips(), sys.argv[1], 5, evaluate).run()
    print(json.dumps([seen[-1], torch.initial_seed()]))

run(main)
"""


def in_two_processes(folder, *arguments: str) -> list[tuple[list[float], int]]:
    """What each process has scored last, and the seed of its last iteration."""
    folder.mkdir()
    results = finish_all(launch(PROGRAM, folder, *arguments))
    assert [status for status, *_ in results] == [0, 0], results
    return [json.loads(out.splitlines()[-1]) for _, out, _ in results]


@pytest.mark.slow
def test_accumulation_in_two_processes_equals_one_process_with_all_clips(tmp_path):
    in_two_processes(tmp_path / "two", "plain")
    cfg = Config.fromstring(CONFIG, ".py")
    cfg.data.samples_per_gpu = 8
    torch.manual_seed(5)
    (tmp_path / "one").mkdir()
    Trainer(cfg, ToySegmentor(dropout=0.0, batch_norm=False), ToyClips(), tmp_path / "one", 5).run()
    one, two = (read_checkpoint(tmp_path / name / "iter_6.pth")["state_dict"] for name in ("one", "two"))
    torch.manual_seed(5)
    first = ToySegmentor(dropout=0.0, batch_norm=False).state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    assert (one["conv.weight"] - first["conv.weight"]).abs().max() > 1e-2  # both have gone the same way


@pytest.mark.slow
def test_what_two_processes_score_is_what_they_save(tmp_path):
    seen, seeds = zip(*in_two_processes(tmp_path / "two"))
    saved = read_checkpoint(tmp_path / "two" / "latest.pth")["state_dict"]
    expected = [*saved["norm.running_mean"].tolist(), *saved["norm.running_var"].tolist()]
    assert seen == (expected, expected)
    assert seeds[0] != seeds[1]  # dropout is not the same in both
