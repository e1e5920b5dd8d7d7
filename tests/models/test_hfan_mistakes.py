"""HFAN: weights that belong to it, and what cannot work."""

from __future__ import annotations

import pytest
import torch

from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.models import build_head, build_segmentor
from mmseg.weights import load_checkpoint
from tests.models.test_hfan import model_config


@pytest.mark.parametrize(("saved", "model"), [("hfan", "im"), ("im", "hfan"), ("fam", "hfan"), ("fat", "fam")])
def test_checkpoint_of_another_method_is_refused(tmp_path, saved, model):
    torch.save({"state_dict": build_segmentor(model_config(saved)).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=f"(?s)select_method {saved}.*{model!r}.*select_method="):
        load_checkpoint(build_segmentor(model_config(model)), tmp_path / "a.pth", purpose="test")
    load_checkpoint(build_segmentor(model_config(model)), tmp_path / "a.pth", purpose="train")


def test_checkpoint_of_another_width_is_refused(tmp_path):
    wide = model_config(decoder_params=dict(embed_dim=64))
    torch.save({"state_dict": build_segmentor(wide).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"(?s)embed_dim 64.*embed_dim=64"):
        load_checkpoint(build_segmentor(model_config()), tmp_path / "a.pth", purpose="test")


@pytest.mark.parametrize("layout", ["flat", "of a segmentor", "of HFAN"])
def test_pretrained_backbone(tmp_path, layout):
    source = build_segmentor(model_config())
    state = source.backbone.backbone.state_dict()
    prefix = {"flat": "", "of a segmentor": "backbone.", "of HFAN": "backbone.backbone."}[layout]
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "mit_b0.pth")
    model = build_segmentor({**model_config(), "pretrained": str(tmp_path / "mit_b0.pth")})
    for name, value in model.backbone.backbone.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(decode_head=dict(select_method="hfn")), "select_method"),
        (dict(decode_head=dict(in_channels=[64, 128, 320, 512])), r"\[32, 64, 160, 256\]"),
        (dict(backbone=dict(ori_type="mit_b9")), "mit_b9"),
        (dict(backbone=dict(ori_type="mit_b0", depht=3)), "depht"),
        (dict(backbone=dict(type="mit_b0", ori_type=None)), "backbone"),
    ],
)
def test_settings_that_cannot_work(change, message):
    config = model_config()
    for part, keys in change.items():
        config[part].update(keys)
        config[part] = {key: value for key, value in config[part].items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        build_segmentor(config)


def test_a_frame_without_flow_is_told():
    model = build_segmentor(model_config()).eval()
    with pytest.raises(DataError, match=r"(?s)3 channels.*optical flow"):
        model.stream().step(torch.zeros(3, 64, 64))
    with pytest.raises(DataError, match="6 channels"):
        model.encode_decode(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("method", ["hfan", "fat"])
def test_a_batch_of_one_frame_cannot_be_normalised(method):
    model = build_segmentor(model_config(method)).train()
    batch = dict(img=torch.zeros(1, 6, 64, 64), gt_semantic_seg=torch.zeros(1, 1, 64, 64).long())
    with pytest.raises(ConfigError, match="samples_per_gpu"):
        model.loss(batch)
    build_segmentor(model_config("fam")).train().loss(batch)


def test_no_dropout_works():
    head = build_head({**model_config()["decode_head"], "dropout_ratio": 0})
    assert head.dropout.p == 0
