"""Configs with the released names and keys run as they are: only `mmseg.compat` knows those names."""

import json
from pathlib import Path

import pytest
import torch

from mmseg.apis.testing import TestOptions
from mmseg.apis.testing import test_model as run_test
from mmseg.apis.training import train_segmentor
from mmseg.config import load_config
from mmseg.models import build_segmentor
from mmseg.writing.label_pickle import read_label_pickle
from tests.datasets.vspw_folder import write_vspw
from tests.official_text import pipelines

ROOT = Path(__file__).parents[1]

# A config as users of the official release have it: official type names, a path of another machine.
OFFICIAL = """
_base_ = [
    '{root}/local_configs/_base_/models/segformer.py',
    '{root}/local_configs/_base_/datasets/vspw_repeat2.py',
    '{root}/local_configs/_base_/default_runtime.py',
    '{root}/local_configs/_base_/schedules/schedule_160k_adamw.py'
]
norm_cfg = dict(type='SyncBN', requires_grad=True)
find_unused_parameters = True
model = dict(
    type='EncoderDecoder_clips',
    pretrained={pretrained!r},
    backbone=dict(type='mit_{size}', style='pytorch'),
    decode_head=dict(
        type={head!r},
        in_channels={channels},
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=124,
        norm_cfg=norm_cfg,
        align_corners=False,
        decoder_params=dict(embed_dim=256{depth}),
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        num_clips=4{extra}),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
optimizer = dict(_delete_=True, type='AdamW', lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01,
                 paramwise_cfg=dict(custom_keys={{'pos_block': dict(decay_mult=0.),
                                                 'norm': dict(decay_mult=0.),
                                                 'head': dict(lr_mult=10.)}}))
lr_config = dict(_delete_=True, policy='poly', warmup='linear', warmup_iters=1500, warmup_ratio=1e-6,
                 power=1.0, min_lr=0.0, by_epoch=False)
data = dict(samples_per_gpu=2)
evaluation = dict(interval=160000, metric='mIoU')
"""
LARGE, SMALL = [64, 128, 320, 512], [32, 64, 160, 256]
MRCFA = "SegFormerHead_clips2_resize_1_8_hypercorrelation2_topk_ensemble4"


# The official data section, inline as in B5, for small frames and clips.
DATA = """
{pipelines}data = dict(
    _delete_=True, samples_per_gpu=2, workers_per_gpu=0,
    train=dict(type='RepeatDataset', times=50, dataset=dict(
        type='VSPWDataset2', data_root={data!r}, img_dir='images/training', ann_dir='annotations/training',
        split='train', pipeline=train_pipeline, dilation=[-9, -6, -3])),
    val=dict(
        type='VSPWDataset2', data_root={data!r}, img_dir='images/validation', ann_dir='annotations/validation',
        split='val', pipeline=test_pipeline, dilation=[-9, -6, -3]),
    test=dict(
        type='VSPWDataset2', data_root={data!r}, img_dir='images/validation', ann_dir='annotations/validation',
        split={split!r}, pipeline=test_pipeline, dilation={dilation}))
runner = dict(type='IterBasedRunner', max_iters=2)
evaluation = dict(interval=2, metric='mIoU')
"""


def official(tmp_path, size, head, depth="", extra="", pretrained=None, more=""):
    path = tmp_path / "official.py"
    channels = SMALL if size == "b0" else LARGE
    path.write_text(OFFICIAL.format(root=ROOT, **locals()) + more)
    return load_config(path)


@pytest.mark.parametrize(
    ("size", "head", "depth", "extra", "millions"),
    [
        ("b0", "CFFMHead_clips_resize1_8", ", depths=1", "", 4_672_527),
        ("b1", "CFFMHead_clips_resize1_8", ", depths=2", "", 15_482_538),
        ("b1", "CFFMHead_clips_resize1_8_gene_prototype", ", depths=2", "", 15_482_538),
        ("b1", "CFFMHead_clips_resize1_8_finetune_w_prototype3", ", depths=2", "", 16_502_894),
        ("b5", "CFFMHead_clips_resize1_8", ", depths=4", "", 85_467_936),
        ("b0", MRCFA, "", ", hypercorre=True, backbone='b0'", 5_297_988),
        ("b1", MRCFA, "", ", hypercorre=True, backbone='b1'", 16_337_655),
    ],
)
def test_official_model_dicts_build_with_the_published_size(tmp_path, size, head, depth, extra, millions):
    cfg = official(tmp_path, size, head, depth, extra)
    assert sum(p.numel() for p in build_segmentor(cfg.model).parameters()) == millions


def test_mrcfa_baseline_config_names_the_per_frame_baseline(tmp_path):
    cfg = official(tmp_path, "b0", "SegFormerHead_clips2_resize_1_8", extra=", hypercorre=False")
    model = build_segmentor(cfg.model)
    assert type(model.decode_head).__name__ == "SegFormerHead"
    assert "decode_head.linear_fuse.bn.weight" in model.state_dict()


def test_path_of_another_machine_gives_a_warning(tmp_path, monkeypatch, recwarn, caplog):
    monkeypatch.chdir(tmp_path)
    cfg = official(tmp_path, "b0", "CFFMHead_clips_resize1_8", ", depths=1", pretrained="/data/pretrained/mit_b0.pth")
    build_segmentor(cfg.model)
    messages = [str(w.message) for w in recwarn] + caplog.messages
    assert sum("pretrained/mit_b0.pth" in m for m in messages) == 1


def test_shipped_configs_have_the_published_sizes():
    sizes = {
        "cffm/B2/cffm.b2.480x480.vspw2.160k.py": 26_527_402,
        "cffm/B2/cffm.b2.480x480.vspw2_fine_w_proto.40k.py": 27_547_758,
        "cffm/B0/cffm.b0.480x480.vspw2_fine_w_proto.40k.py": 5_692_883,
        "mrcfa/B2/mrcfa.b2.480x480.vspw2.160k.py": 27_382_340,
        "mrcfa/B0/mrcfa.b0.480x480.vspw2_hypercorr.160k.py": 5_297_988,
    }
    for path, size in sizes.items():
        cfg = load_config(ROOT / "local_configs" / path, {"model.pretrained": None})
        assert sum(p.numel() for p in build_segmentor(cfg.model).parameters()) == size, path


# --- to the end: two iterations with validation, and a test, of every family with the smallest backbone ---------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    videos = dict(train={"a": 12, "b": 11}, val={"c": 11}, test={"d": 10})
    return write_vspw(tmp_path_factory.mktemp("official") / "VSPW_480p", **videos, size=(40, 64))


def family(tmp_path, data, head, depth="", extra="", split="val", dilation="[-9, -6, -3]"):
    more = DATA.format(pipelines=pipelines(96, (144, 96)), data=str(data), split=split, dilation=dilation)
    return official(tmp_path, "b0", head, depth, extra, more=more)


def trained(cfg, folder, **arguments):
    """The checkpoint after a training, whose scores must be there."""
    scores = train_segmentor(cfg, folder, seed=0, **arguments)
    assert 0 <= scores["mmseg/mIoU"] <= 1 and scores["IoU.wall"] >= 0
    return folder / "iter_2.pth"


def check_test(cfg, checkpoint, folder):
    """A test whose results and scores must be there for every frame."""
    (evaluator,) = run_test(cfg, checkpoint, torch.device("cpu"), TestOptions(folder / "res.pkl", progress=False))
    maps = list(read_label_pickle(folder / "res.pkl"))
    assert [labels.shape for labels in maps] == [(40, 64)] * 11
    assert evaluator.compute()["counts"]["frames"] == 11 and "mIoU" in evaluator.tables()
    assert json.loads((folder / "res.json").read_text())["run"]["checkpoint"] == str(checkpoint)


@pytest.mark.parametrize(
    ("head", "depth", "extra"),
    [
        (MRCFA, "", ", hypercorre=True, backbone='b0'"),
        ("SegFormerHead_clips2_resize_1_8", "", ", hypercorre=False"),
    ],
    ids=["MRCFA", "MRCFA's baseline"],
)
def test_train_and_test(tmp_path, data, head, depth, extra):
    cfg = family(tmp_path, data, head, depth, extra)
    check_test(cfg, trained(cfg, tmp_path / "work"), tmp_path)


def test_cffm_and_the_three_steps_of_cffm_plus(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)  # prototypes go to ./cluster_centers
    cffm = family(tmp_path, data, "CFFMHead_clips_resize1_8", ", depths=1")
    checkpoint = trained(cffm, tmp_path / "cffm")
    check_test(cffm, checkpoint, tmp_path)

    split, head = "train_val_generate_prototype", "CFFMHead_clips_resize1_8_gene_prototype"
    generate = family(tmp_path, data, head, ", depths=1", split=split, dilation="[]")
    assert run_test(generate, checkpoint, torch.device("cpu"), TestOptions(None, metrics=(), progress=False)) == []
    assert sorted(path.name for path in (tmp_path / "cluster_centers").iterdir()) == ["a", "b", "c", "d"]

    plus = family(tmp_path, data, "CFFMHead_clips_resize1_8_finetune_w_prototype3", ", depths=1")
    check_test(plus, trained(plus, tmp_path / "plus", load_from=str(checkpoint)), tmp_path)
