"""Frames, flow pictures and masks in the layout of DAVIS2SEG, small enough for every test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.official_text import RUNTIME

SIZE = (48, 64)


def write_vos(
    root: Path, lengths: dict[str, int], part: str = "val", folders: bool = False, object_value: int = 1
) -> Path:
    """Videos of a box that moves over noise; `folders` makes a folder of each."""
    for seed, (video, length) in enumerate(lengths.items()):
        rng = np.random.default_rng(seed)
        ground = rng.integers(60, 120, (*SIZE, 3), np.uint8)
        for t in range(length):
            frame, flow = ground.copy(), np.full((*SIZE, 3), 255, np.uint8)
            mask = np.zeros(SIZE, np.uint8)
            x = 4 + 2 * t + 5 * seed
            frame[12:36, x : x + 24], flow[12:36, x : x + 24], mask[12:36, x : x + 24] = (
                (200, 40, 40),
                (90, 200, 250),
                1,
            )
            name = f"{video}/{t:05d}" if folders else f"{video}_{t:05d}"
            for kind, picture, suffix in (("frame", frame, "jpg"), ("flow", flow, "jpg"), ("mask", mask, "png")):
                path = root / kind / part / f"{name}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture * object_value if kind == "mask" else picture)
    return root


def vos_config(path: Path, root: Path, more: str = "") -> Path:
    """A config of HFAN with MiT-B0 for such data, as a user writes it for the published code."""
    path.write_text(OFFICIAL.format(root=str(root), runtime=RUNTIME) + more)
    return path


# The keys and type names of the released configs.
OFFICIAL = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
find_unused_parameters = True
model = dict(
    type='EncoderDecoder',
    pretrained='/data/pretrained/mit_b0.pth',
    backbone=dict(type='HFANVOS', ori_type='mit_b0', style='pytorch'),
    decode_head=dict(
        type='HFANVOS_Head', in_channels=[32, 64, 160, 256], in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32],
        channels=128, select_method='hfan', dropout_ratio=0.1, num_classes=2, norm_cfg=norm_cfg, align_corners=False,
        decoder_params=dict(embed_dim=64),
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(34, 34)))
dataset_type = 'VOSDataset'
data_root = {root!r}
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = (64, 64)
train_pipeline = [
    dict(type='LoadImagesFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=False),
    dict(type='Resize', img_scale=(256, 64), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortionMultiImages'),
    dict(type='NormalizeMultiImages', **img_norm_cfg),
    dict(type='Pad', size=crop_size, pad_val=0, seg_pad_val=0),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg']),
]
test_pipeline = [
    dict(type='LoadImagesFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(256, 64), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True),
        dict(type='ResizeToMultiple', size_divisor=32),
        dict(type='RandomFlip'),
        dict(type='NormalizeMultiImages', **img_norm_cfg),
        dict(type='ImageToTensor', keys=['img']),
        dict(type='Collect', keys=['img'])]),
]
data = dict(
    samples_per_gpu=2, workers_per_gpu=0,
    train=dict(type='RepeatDataset', times=15, dataset=dict(
        type=dataset_type, data_root=data_root, img1_dir='frame/train', img2_dir='flow/train', ann_dir='mask/train',
        pipeline=train_pipeline)),
    val=dict(type=dataset_type, data_root=data_root, img1_dir='frame/val', img2_dir='flow/val', ann_dir='mask/val',
             pipeline=test_pipeline),
    test=dict(type=dataset_type, data_root=data_root, img1_dir='frame/val', img2_dir='flow/val', ann_dir='mask/val',
              pipeline=test_pipeline))
{runtime}optimizer = dict(type='AdamW', lr=0.00001, betas=(0.9, 0.999), weight_decay=0.01,
                 paramwise_cfg=dict(custom_keys={{'pos_block': dict(decay_mult=0.), 'norm': dict(decay_mult=0.),
                                                 'head': dict(lr_mult=10.)}}))
optimizer_config = dict()
lr_config = dict(policy='fixed')
runner = dict(type='IterBasedRunner', max_iters=2)
checkpoint_config = dict(by_epoch=False, interval=2)
evaluation = dict(interval=2, metric=['VOS'])
"""
