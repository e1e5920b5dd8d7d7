"""Configs with the released names and keys run as they are: only `mmseg.compat` knows those names."""

from pathlib import Path

import pytest

from mmseg.config import load_config
from mmseg.models import build_segmentor

ROOT = Path(__file__).parents[1]

# A config as users of the official release have it: official type names, a path of somebody's cluster.
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


def official(tmp_path, size, head, depth="", extra="", pretrained=None):
    path = tmp_path / "official.py"
    channels = SMALL if size == "b0" else LARGE
    path.write_text(OFFICIAL.format(root=ROOT, **locals()))
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


def test_path_of_somebody_elses_cluster_gives_a_warning(tmp_path, monkeypatch, recwarn, caplog):
    monkeypatch.chdir(tmp_path)
    cfg = official(
        tmp_path, "b0", "CFFMHead_clips_resize1_8", ", depths=1", pretrained="/cluster/work/someone/mit_b0.pth"
    )
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
