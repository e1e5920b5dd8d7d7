"""HFAN from nothing to scores: toy videos with flow, both stages, masks."""

from __future__ import annotations

from mmseg.making.toy_objects import generate_toy_objects
from tests.tools.processes import ROOT, TRAIN, finish

CONFIG = str(ROOT / "local_configs/toy/hfan.b0.py")
SMALL = ["data_root=toy", "data.samples_per_gpu=2", "data.workers_per_gpu=0", "checkpoint_config.interval=2"]
SMALL += ["runner.max_iters=2", "evaluation.interval=2"]


def test_toy_chain(tmp_path, call, monkeypatch):
    """One work folder for both stages, as published; the second starts from the weights of the first."""
    monkeypatch.chdir(tmp_path)
    generate_toy_objects("toy", 2, 2, 4, flow="farneback")
    arguments = ["--seed", "1208", "--deterministic", "--work-dir", "work", "--gpus", "0", "--options", *SMALL]
    output = finish([*TRAIN, CONFIG, *arguments], tmp_path)
    assert "JM" in output
    refine = [
        "load_from=work/iter_2.pth",
        "runner.max_iters=3",
        "checkpoint_config.interval=3",
        "evaluation.interval=3",
    ]
    output = call("train.py", CONFIG, *arguments, *refine)
    assert "weights of work/iter_2.pth loaded" in output
    infer = ["infer.py", "--config", CONFIG, "--checkpoint", "work/iter_3.pth", "--output_dir", "out"]
    output = call(*infer, "--input_dir", "toy", "--device", "cpu")
    assert "DAVIS-2016" in output
    assert len(list((tmp_path / "out-DAVIS-16").glob("*/*.png"))) == 8
