"""Config files as THE-Mask's release has them: official names of model, data sets and pipelines, base files beside."""

import json
from pathlib import Path

import pytest
import torch

from mmseg.apis.testing import TestOptions
from mmseg.apis.testing import test_model as run_test
from mmseg.apis.training import train_segmentor
from mmseg.config import load_config
from mmseg.errors import ConfigError
from mmseg.models import build_segmentor
from mmseg.writing.label_pickle import read_label_pickle
from tests.datasets.vspw_folder import write_vspw
from tests.official_text import RUNTIME, pipelines

SCHEDULE = """
optimizer = dict(type='AdamW', lr=0.0001, weight_decay=0.05)
optimizer_config = dict()
lr_config = dict(policy='poly', power=0.9, min_lr=0.0, by_epoch=False)
runner = dict(type='IterBasedRunner', max_iters=160000)
checkpoint_config = dict(by_epoch=False, interval=4000)
evaluation = dict(interval=4000, metric='mIoU')
"""
DATA = """
dataset_type = 'VSPWDataset2'
data_root = {data!r}
{pipelines}data = dict(
    samples_per_gpu=2,
    workers_per_gpu=0,
    train=dict(type='RepeatDataset', times=50, dataset=dict(
        type=dataset_type, data_root=data_root, img_dir='images/training', ann_dir='annotations/training',
        split='train', pipeline=train_pipeline, dilation=[-9, -6, -3])),
    val=dict(type='VSPWDataset_multiFrameTest', data_root=data_root, img_dir='images/validation',
             ann_dir='annotations/validation', split='val', pipeline=test_pipeline, dilation=[-9, -6, -3],
             test_size=32),
    test=dict(type='VSPWDataset_multiFrameTest', data_root=data_root, img_dir='images/validation',
              ann_dir='annotations/validation', split='val', pipeline=test_pipeline, dilation=[-9, -6, -3],
              test_size=32))
"""
CONFIG = """
_base_ = ['./_base_/datasets/vspw_repeat2_mask2former.py', './_base_/default_runtime.py',
          './_base_/schedules/schedule_160k_adamw.py']
norm_cfg = dict(type='SyncBN', requires_grad=True)
find_unused_parameters = True
model = dict(
    type='EncoderDecoder_clips',
    pretrained='/data/pretrained/mit_b0.pth',
    backbone=dict(type='mit_b0', style='pytorch'),
    decode_head=dict(
        type={head!r},
        num_classes=124,
        loss_weight=1.0,
        ignore_value=255,
        input_shape=dict(
            res2=dict(channels=32, stride=4), res3=dict(channels=64, stride=8),
            res4=dict(channels=160, stride=16), res5=dict(channels=256, stride=32)),
        in_index=[0, 1, 2, 3],
        in_features=["res2", "res3", "res4", "res5"],
        loss_cfg=dict(
            matcher_cfg=dict(class_weight=2.0, mask_weight=5.0, dice_weight=5.0, class_weight_unmatched=1.0,
                             mask_weight_unmatched=0.5, dice_weight_unmatched=0.5),
            {warmup}
            round_weight=[1.0, 0.5],
            {aux}
            deep_supervision=True,
            no_object_weight=0.1,
            train_num_points=12544,
            dec_layers=10,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75),
        pixel_decoder_cfg=dict(
            type="MSDeformAttnPixelDecoder", conv_dim=256, mask_dim=256, norm="GN", transformer_dropout=0.0,
            transformer_nheads=8, transformer_dim_feedforward=1024, transformer_enc_layers=6,
            transformer_in_features=["res3", "res4", "res5"], common_stride=4),
        transformer_decoder_cfg=dict(
            type={decoder!r}, CONVS_DIM=256, MASK_DIM=256, transformer_in_feature="multi_scale_pixel_decoder",
            num_classes=124, hidden_dim=256, num_queries=100, nheads=8, dim_feedforward=2048, dec_layers=9,
            pre_norm=False, enforce_input_project=False, mask_dim=256, num_frames=1)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
optimizer = dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05,
                 paramwise_cfg=dict(custom_keys={{'backbone': dict(lr_mult=0.1), 'norm': dict(decay_mult=0.)}}))
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
lr_config = dict(_delete_=True, policy='poly', warmup='linear', warmup_iters=0, warmup_ratio=1e-6, power=0.9,
                 min_lr=0.0, by_epoch=False)
data = dict(samples_per_gpu=2, train=dict(dataset=dict(dilation=[0])), test=dict(test_size=1))
evaluation = dict(interval=170000, metric='mIoU')
"""
FRAME, VIDEO = "MultiScaleMaskedTransformerDecoder", "VideoMultiScaleMaskedTransformerDecoder"
STAGES = {
    "1f": dict(head="THEMask1fHead", decoder=FRAME, warmup="warmup_iters=30000,", aux=""),
    "video": dict(head="THEMaskHead", decoder=VIDEO, warmup="", aux="aux_weight=0.25,"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The config files beside their base files, and small data."""
    root = tmp_path_factory.mktemp("official")
    data = write_vspw(root / "VSPW_480p", train={"a": 12, "b": 11}, val={"c": 8}, size=(40, 64))
    for name, text in {
        "datasets/vspw_repeat2_mask2former.py": DATA.format(data=str(data), pipelines=pipelines(64, (96, 64))),
        "default_runtime.py": RUNTIME,
        "schedules/schedule_160k_adamw.py": SCHEDULE,
    }.items():
        (root / "_base_" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "_base_" / name).write_text(text)
    for stage, parts in STAGES.items():
        (root / f"{stage}_themask_mit_b0.py").write_text(CONFIG.format(**parts))
    return root


@pytest.mark.parametrize(("stage", "millions"), [("1f", 23.03), ("video", 26.22)])
def test_official_model_dicts_build_with_the_published_size(folder, stage, millions):
    cfg = load_config(folder / f"{stage}_themask_mit_b0.py", {"model.pretrained": None})
    with torch.device("meta"):
        model = build_segmentor(cfg.model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_both_stages_run_to_the_end(folder, tmp_path, monkeypatch):
    """An iteration of the first stage, one of the second with the published options, and a test."""
    monkeypatch.chdir(tmp_path)  # no pretrained/mit_b0.pth here: a warning
    first = load_config(folder / "1f_themask_mit_b0.py", {"runner.max_iters": 1, "data.samples_per_gpu": 1})
    scores = train_segmentor(first, tmp_path / "first", seed=0)
    assert 0 <= scores["mmseg/mIoU"] <= 1
    options = {
        "model.decode_head.transformer_decoder_cfg.num_frames": 2,
        "data.train.dataset.dilation": [-3],
        "runner.max_iters": 1,
        "checkpoint_config.interval": 1,
        "data.samples_per_gpu": 1,
    }
    second = load_config(folder / "video_themask_mit_b0.py", options)
    start = str(tmp_path / "first" / "latest.pth")
    train_segmentor(second, tmp_path / "second", seed=0, finetune_from=start, validate=False)
    checkpoint = tmp_path / "second" / "iter_1.pth"
    with pytest.raises(ConfigError, match=r"test_size=32: .*\n.*1, 2, 4"):
        wrong = load_config(folder / "video_themask_mit_b0.py", {"data.test.test_size": 32})
        run_test(wrong, checkpoint, torch.device("cpu"), TestOptions(None, metrics=(), progress=False))
    test = load_config(folder / "video_themask_mit_b0.py", {"data.test.test_size": 2})
    (evaluator,) = run_test(test, checkpoint, torch.device("cpu"), TestOptions(tmp_path / "res.pkl", progress=False))
    assert [labels.shape for labels in read_label_pickle(tmp_path / "res.pkl")] == [(40, 64)] * 8
    assert evaluator.compute()["counts"]["frames"] == 8
    assert json.loads((tmp_path / "res.json").read_text())["run"]["test_size"] == 2


def test_a_dilation_that_does_not_fit_is_told_before_training(folder, tmp_path):
    cfg = load_config(
        folder / "video_themask_mit_b0.py", {"data.train.dataset.dilation": [-3], "model.pretrained": None}
    )
    with pytest.raises(ConfigError, match=r"data\.train\.dataset\.dilation = \[-3\], .*num_frames = 1"):
        train_segmentor(cfg, tmp_path / "run", seed=0)
