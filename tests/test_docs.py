"""Code in the docs runs as it is printed."""

import re
from pathlib import Path

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

ROOT = Path(__file__).parents[1]


def code(page: str, holding: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return next(block for block in blocks if holding in block)


def test_the_new_head_of_extending_trains_and_streams():
    exec(code("docs/extending.md", "class MyHead"), {"MODELS": MODELS, "ClipHead": ClipHead, "torch": torch, "nn": nn})
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
