"""Writes small data sets in the VSPW layout for the tests of this folder."""

from __future__ import annotations

import json
import pathlib

import cv2
import numpy as np
import pytest

from mmseg.errors import DataError

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
TRAIN = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels", reduce_zero_label=True),
    dict(type="Resize", img_scale=(48, 32), ratio_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", **NORM),
    dict(type="Pad", size=(32, 32), pad_val=0, seg_pad_val=255),
    dict(type="PackClip"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
TEST = [
    dict(type="LoadFrames"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(48, 32),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True, size_divisor=32),
            dict(type="RandomFlip"),
            dict(type="Normalize", **NORM),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]


def write_vspw(
    root: pathlib.Path,
    train: dict[str, int] | None = None,
    val: dict[str, int] | None = None,
    test: dict[str, int] | None = None,
    size: tuple[int, int] = (24, 36),
    classes: int | None = None,
) -> pathlib.Path:
    """Videos of blocks of classes; each split maps names to numbers of frames. The value of the first pixel of a
    frame is its number."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for split, videos in dict(train=train, val=val, test=test).items():
        if videos is None:
            continue
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in videos))
        for name, length in videos.items():
            folder = root / "data" / name
            (folder / "origin").mkdir(parents=True)
            (folder / "mask").mkdir()
            for t in range(length):
                frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / "origin" / f"{t:08d}.jpg"), cv2.blur(frame, (5, 5)))
                blocks = rng.integers(0, classes + 1 if classes else 125, (4, 4), dtype=np.uint8)
                mask = cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(folder / "mask" / f"{t:08d}.png"), mask)
    if classes:
        (root / "classes.json").write_text(json.dumps([f"name{i}" for i in range(classes)]))
    return root


def mask_of(root, video="c", number=1):
    return root / "data" / video / "mask" / f"{number:08d}.png"


def frame_of(root, video="c", number=1):
    return root / "data" / video / "origin" / f"{number:08d}.jpg"


def expect(message, function, *args, error=DataError, **kwargs):
    """The error's text, which must hold `message` and say what is expected and what to do."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert message in str(caught.value)
    assert caught.value.expected and caught.value.action
    return str(caught.value)
