"""A data set in the VSPW layout that is small enough for every test, and a config for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from mmseg.apis import init_segmentor
from mmseg.carried_config import packed_config
from mmseg.config import load_config
from mmseg.engine.checkpoints import own_meta, save_checkpoint

CLASSES = ("floor", "box", "ball")
SIZE = (45, 70)  # the network sees 64x96


def make_video(root: Path, name: str, num_frames: int, seed: int, size: tuple[int, int] = SIZE) -> None:
    """A box and a ball that move over a noisy floor; a void border on the left."""
    rng = np.random.default_rng(seed)
    origin, mask = root / "data" / name / "origin", root / "data" / name / "mask"
    origin.mkdir(parents=True)
    mask.mkdir()
    height, width = size
    ground = rng.integers(60, 120, (height, width, 3), np.uint8)
    for t in range(num_frames):
        frame, label = ground.copy(), np.ones((height, width), np.uint8)
        x = (5 + 2 * t + 3 * seed) % (width - 20)
        frame[10:30, x : x + 15], label[10:30, x : x + 15] = (200, 40, 40), 2
        centre = (width - 1 - x, height - 12)
        cv2.circle(frame, centre, 8, (30, 220, 30), -1)
        cv2.circle(label, centre, 8, 3, -1)
        label[:, :3] = 0
        cv2.imwrite(str(origin / f"{t:05d}.jpg"), frame)
        cv2.imwrite(str(mask / f"{t:05d}.png"), label)


def make_data(root: Path, lengths: dict[str, int], split: str = "val") -> Path:
    """`lengths` gives the number of frames of each video, in split order."""
    for seed, (name, num_frames) in enumerate(lengths.items()):
        make_video(root, name, num_frames, seed)
    (root / f"{split}.txt").write_text("\n".join(lengths) + "\n")
    return root


CONFIG = """
model = dict(
    type="{segmentor}",
    pretrained="pretrained/not_there.pth",
    backbone=dict(type="mit_b0"),
    decode_head=dict(
        type="{head}",
        in_channels=[32, 64, 160, 256],
        channels=128,
        num_classes=3,
        dropout_ratio=0.1,
        decoder_params=dict(embed_dim=256{extra}),
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
    test_cfg=dict(mode="whole"),
)
test_pipeline = [
    dict(type="LoadFrames"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(96, 64),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True, size_divisor=32),
            dict(type="RandomFlip"),
            dict(type="Normalize", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
data = dict(
    test=dict(
        type="VSPWDataset",
        data_root="{root}",
        split="val",
        pipeline=test_pipeline,
        dilation=[-9, -6, -3],
        classes=["floor", "box", "ball"],
    ),
)
"""


def write_config(path: Path, root: Path, clip: bool = True) -> Path:
    """A config of a CFFM, or of the per-frame baseline."""
    if clip:
        names = dict(segmentor="ClipSegmentor", head="CFFMHead", extra=", depths=1")
    else:
        names = dict(segmentor="FrameSegmentor", head="SegFormerHead", extra="")
    path.write_text(CONFIG.format(root=root, **names))
    return path


def write_checkpoint(path: Path, config: Path, **options: object) -> Path:
    """A checkpoint of an untrained network that carries its config, as a training would write it."""
    cfg = load_config(config, options)
    torch.manual_seed(0)
    meta = {**own_meta(), "CLASSES": list(CLASSES), **packed_config(cfg)}
    save_checkpoint(path, {"meta": meta, "state_dict": init_segmentor(cfg).state_dict()})
    return path
