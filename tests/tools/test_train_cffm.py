"""CFFM trained in two processes on a small data set in the VSPW layout, evaluated on the way."""

import json
import pathlib

import cv2
import numpy as np
import pytest
import torch

from mmseg.weights import read_checkpoint
from tests.tools.processes import ROOT, finish_two

CONFIG = """
_base_ = ["{root}/local_configs/cffm/B0/cffm.b0.480x480.vspw2.160k.py"]
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels", reduce_zero_label=True),
    dict(type="Resize", img_scale=(96, 64), ratio_range=(0.8, 1.5)),
    dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", **norm),
    dict(type="Pad", size=(64, 64), pad_val=0, seg_pad_val=255),
    dict(type="PackClip"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
test_pipeline = [
    dict(type="LoadFrames"),
    dict(type="MultiScaleFlipAug", img_scale=(96, 64), flip=False, transforms=[
        dict(type="Resize", keep_ratio=True, size_divisor=32),
        dict(type="RandomFlip"),
        dict(type="Normalize", **norm),
        dict(type="ImageToTensor", keys=["img"]),
        dict(type="Collect", keys=["img"]),
    ]),
]
model = dict(pretrained=None, decode_head=dict(num_classes=3))
data = dict(
    samples_per_gpu=1,
    workers_per_gpu=1,
    train=dict(times=2, dataset=dict(data_root="{data}", pipeline=train_pipeline)),
    val=dict(data_root="{data}", pipeline=test_pipeline),
)
runner = dict(max_iters=8)
checkpoint_config = dict(interval=2)
custom_hooks = [
    dict(type="EMAHook", momentum=0.5),
    dict(type="EarlyStoppingHook", monitor="mIoU", patience=1, min_delta=1.0),  # no score gets better by 1
]
evaluation = dict(interval=2, save_best="mIoU")
log_config = dict(interval=1)
"""


def write_data(root: pathlib.Path) -> None:
    """Three videos of 18 frames (with 16 or fewer they would have no scores): a disc and a box that move."""
    (root / "classes.json").write_text(json.dumps(["ground", "disc", "box"]))
    (root / "train.txt").write_text("a\n")
    (root / "val.txt").write_text("b\nc\n")
    rng = np.random.default_rng(0)
    colours = np.array([[0, 0, 0], [60, 60, 60], [200, 30, 30], [30, 200, 30]], np.uint8)
    for video in "abc":
        for folder in ("origin", "mask"):
            (root / "data" / video / folder).mkdir(parents=True)
        for t in range(18):
            label = np.full((64, 96), 1, np.uint8)
            cv2.circle(label, (20 + 3 * t, 30), 15, 2, -1)
            cv2.rectangle(label, (70 - 2 * t, 30), (90 - 2 * t, 60), 3, -1)
            frame = colours[label] + rng.integers(0, 30, (64, 96, 3)).astype(np.uint8)
            cv2.imwrite(str(root / "data" / video / "origin" / f"{t:05d}.jpg"), frame)
            cv2.imwrite(str(root / "data" / video / "mask" / f"{t:05d}.png"), label)


@pytest.mark.slow
def test_two_processes_train_and_evaluate(tmp_path):
    data, folder = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    write_data(data)
    config = tmp_path / "small.py"
    config.write_text(CONFIG.format(root=ROOT, data=data))
    finish_two("train.py", tmp_path, config, "--work-dir", folder, "--seed", 0)
    entries = [json.loads(line) for line in next(folder.glob("*.log.json")).read_text().splitlines()]
    scores = [entry for entry in entries if entry.get("mode") == "val"]
    assert [entry["iter"] for entry in scores] == [2, 4]
    assert all(0 <= entry[name] <= 1 for entry in scores for name in ("mIoU", "FWIoU", "VC8", "VC16", "mmseg/mIoU"))
    best = max(scores, key=lambda entry: entry["mIoU"])
    path = folder / f"best_mIoU_iter_{best['iter']}.pth"
    assert read_checkpoint(path)["meta"]["score"] == {"mIoU": best["mIoU"]}
    assert list(read_checkpoint(path)["meta"]["CLASSES"]) == ["ground", "disc", "box"]
    log = next(folder.glob("*.log")).read_text()
    assert "disc" in log  # the table of classes
    assert "early stopping after iteration 4" in log and "Iter [5/8]" not in log
    last = read_checkpoint(folder / "latest.pth")
    assert last["meta"]["iter"] == 4 and last["meta"]["early_stopping"]["waited"] == 1
    name = "decode_head.linear_pred.weight"
    assert not torch.equal(last["trained_weights"][name], last["state_dict"][name])
