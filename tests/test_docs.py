"""Code in the docs runs as it is printed."""

import json
import pickle
import re
import sys
from collections.abc import Sequence  # noqa: F401  (the docs say it at the top of the file)
from pathlib import Path
from typing import Any  # noqa: F401

import cv2
import numpy as np
import torch
from torch import nn

import mmseg.models  # noqa: F401  (registers the heads)
from mmseg.config import load_config
from mmseg.engine.checkpoints import save_checkpoint
from mmseg.models import build_segmentor
from mmseg.models.decode_heads.clip_head import ClipHead
from mmseg.registry import MODELS
from tests.engine.tiny_vspw import make_video
from tests.tools.processes import TRAIN, finish
from tests.tools.report_numbers import numbers_of

ROOT = Path(__file__).parents[1]


def code(page: str, holding: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return next(block for block in blocks if holding in block)


def test_new_parts_outside_of_the_package_train_and_test(tmp_path):
    """The pieces of docs/extending.md as a user's files, through the commands; scores come from the user's metric."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    config, *pieces = blocks
    (tmp_path / "my_parts.py").write_text("\n\n".join(pieces))
    base = f'_base_ = ["{ROOT}/local_configs/toy/cffm.b0.py"]'
    (tmp_path / "my_config.py").write_text(config.replace('_base_ = ["local_configs/toy/cffm.b0.py"]', base))
    for split, length in (("train", 11), ("val", 4)):
        make_video(tmp_path / "vspw", split, length, seed=0)
        (tmp_path / "data" / split).mkdir(parents=True)
        for kind in ("origin", "mask"):
            for path in (tmp_path / "vspw" / "data" / split / kind).iterdir():
                path.rename(tmp_path / "data" / split / f"ball_{path.name}")
    options = ["data_root=data", "model.decode_head.num_classes=3", "runner.max_iters=2", "data.samples_per_gpu=1",
               "data.workers_per_gpu=0", "evaluation.save_best=PixelAccuracy", "evaluation.interval=2"]  # fmt: skip
    finish([*TRAIN, "my_config.py", "--gpus", "0", "--work-dir", "run", "--options", *options], tmp_path)
    [best] = (tmp_path / "run").glob("best_PixelAccuracy_iter_2.pth")
    command = [sys.executable, ROOT / "tools" / "test.py", "my_config.py", best, "--device", "cpu", "--out", "res.pkl"]
    output = finish([*command, "--report", "--options", "data_root=data", "model.decode_head.num_classes=3"], tmp_path)
    score = json.loads((tmp_path / "res.json").read_text())["PixelAccuracy"]
    assert numbers_of(tmp_path / "report.html")["parts"][0]["scores"] == [["PixelAccuracy", score]]
    assert f"pixel accuracy: {score:.4f}" in output and 0 < score < 1
    assert len(pickle.loads((tmp_path / "res.pkl").read_bytes())) == 4


def test_the_new_head_streams_what_it_was_trained_for():
    exec(code("docs/extending.md", "class MyHead"), globals() | {"MODELS": MODELS, "ClipHead": ClipHead, "nn": nn})
    try:
        cfg = load_config(ROOT / "local_configs/cffm/B0/cffm.b0.480x480.vspw2.160k.py", {"model.pretrained": None})
        head = dict(type="MyHead", in_channels=[32, 64, 160, 256], channels=8, num_classes=5)
        model = build_segmentor({**cfg.model, "decode_head": head})
        clip = torch.randn(1, 4, 3, 64, 64)
        losses = model.loss(dict(img=clip, gt_semantic_seg=torch.randint(0, 5, (1, 4, 1, 64, 64))))
        losses["decode.loss_seg"].backward()
        assert model.decode_head.classify.weight.grad.abs().sum() > 0
        stream = model.eval().stream()
        steps = [stream.step(frame) for frame in clip[0]]
        torch.testing.assert_close(steps[3], model.encode_decode(clip)[0], atol=1e-5, rtol=0)
    finally:
        MODELS.module_dict.pop("MyHead")


def test_streaming_example_of_the_readme(tmp_path, monkeypatch):
    config = ROOT / "local_configs/toy/cffm.b0.py"
    writer = cv2.VideoWriter(str(tmp_path / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for level in range(0, 250, 50):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    model = build_segmentor(load_config(config).model)
    save_checkpoint(tmp_path / "cffm_b1.pth", {"meta": {}, "state_dict": model.state_dict()})
    text = code("README.md", "VideoStream(model)").replace(
        "local_configs/cffm/B1/cffm.b1.480x480.vspw2.160k.py", str(config)
    )
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(text, names)
    assert names["labels"].shape == (64, 96) and names["labels"].dtype == np.uint8


def test_messages_of_the_page_of_troubles_are_those_of_the_code():
    sources = [*(ROOT / "mmseg").rglob("*.py"), *(ROOT / "tools").iterdir()]
    code_of_all = "".join(path.read_text() for path in sources if path.suffix in (".py", ".sh"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code_of_all)  # long messages stand in several lines
    rows = [line for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines() if line.startswith("| `")]
    messages = [text for row in rows for text in re.findall("`([^`]+)`", row.split(" | ")[0])]
    assert len(messages) > 25
    assert [text for text in messages if text not in joined] == []
