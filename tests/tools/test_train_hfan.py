"""HFAN from nothing to scores: toy videos with flow, both stages, masks."""

from __future__ import annotations

import sys

from tests.tools.processes import ROOT, TRAIN, finish

CONFIG = str(ROOT / "local_configs/toy/hfan.b0.py")
SMALL = ["data_root=toy", "data.samples_per_gpu=2", "data.workers_per_gpu=0", "checkpoint_config.interval=2"]
SMALL += ["runner.max_iters=2", "evaluation.interval=2"]


def tool(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]


def test_toy_chain(tmp_path):
    """One work folder for both stages, as published; the second starts from the weights of the first."""
    toy = tool("make_toy_dataset.py", "toy", "--layout", "davis2seg", "--flow", "farneback")
    finish([*toy, "--videos", "2", "--val-videos", "2", "--frames", "4"], tmp_path)
    arguments = ["--seed", "1208", "--deterministic", "--work-dir", "work", "--gpus", "0", "--options", *SMALL]
    output = finish([*TRAIN, CONFIG, *arguments], tmp_path)
    assert "JM" in output
    refine = [
        "load_from=work/iter_2.pth",
        "runner.max_iters=3",
        "checkpoint_config.interval=3",
        "evaluation.interval=3",
    ]
    output = finish([*TRAIN, CONFIG, *arguments, *refine], tmp_path)
    assert "weights of work/iter_2.pth loaded" in output
    infer = tool("infer.py", "--config", CONFIG, "--checkpoint", "work/iter_3.pth", "--output_dir", "out")
    output = finish([*infer, "--input_dir", "toy", "--device", "cpu"], tmp_path)
    assert "DAVIS-2016" in output
    assert len(list((tmp_path / "out-DAVIS-16").glob("*/*.png"))) == 8
