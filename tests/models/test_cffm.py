"""CFFM: official numbers, streams against whole clips, the product against the reference."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mmseg.clips import inference_clip
from mmseg.errors import ConfigError
from mmseg.models import build_head, build_segmentor
from mmseg.models.layers.resize import resize
from tests.golden_cases import Case, build_filled
from tests.models.training_cases import check_steps, check_training
from tests.reference import cffm as reference

HEAD_CASES = ["cffm_b1_head", "cffm_b1_head_pad", "cffm_b1_head_1frame", "cffm_b0_head_5clips"]


def head_feats(case: Case) -> list[torch.Tensor]:
    inputs = case.inputs()
    return [inputs[f"c{s}"] for s in (1, 2, 3, 4)]


def tiny_config(**head) -> dict:
    """A CFFM-B0 with few classes, for tests that need no official numbers."""
    config = copy.deepcopy(Case("cffm", "cffm_b1_seg").config)
    config["backbone"] = dict(type="mit_b0", style="pytorch")
    config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=9, **head)
    return config


def tiny_model(**head) -> torch.nn.Module:
    return build_filled(build_segmentor, tiny_config(**head))


@pytest.mark.parametrize("name", HEAD_CASES)
@torch.no_grad()
def test_head_and_reference_have_the_official_numbers(name):
    case = Case("cffm", name)
    head = build_filled(build_head, case.config)
    feats, clips = head_feats(case), (case["batch_size"], case["num_clips"])
    case.check("fused", head.fuse(feats))
    case.check("logits", head(feats, *clips))
    case.check("fused", reference.fused_feature(head, feats))
    case.check("logits", reference.forward(head, feats, *clips))
    if clips[1] != head.num_clips:
        return
    x = reference.half_size(reference.fused_feature(head, feats).unflatten(0, clips))
    case.check("half", x)
    x = x.permute(0, 1, 3, 4, 2)
    for number, block in enumerate(head.decoder_focal.blocks):
        x = reference.focal_block(block, x)
        case.check(f"focal.block{number}", x)


@pytest.mark.parametrize("name", ["cffm_b1_seg", "cffm_b0_seg_1frame"])
def test_segmentor_has_the_official_numbers(name):
    case = Case("cffm", name)
    model = build_filled(build_segmentor, case.config)
    img = case.inputs()["img"]
    logits = model.encode_decode(img)
    case.check("logits_in", logits)
    logits = resize(logits, case["ori_shape"])
    case.check("logits_ori", logits)
    assert np.mean(logits.argmax(1).numpy() == case.arrays["pred"]) >= 0.9999


@pytest.mark.parametrize("loss", [None, reference.loss], ids=["product", "reference"])
def test_training_step_has_the_official_numbers(loss):
    check_training(Case("cffm", "cffm_b1_train"), loss)


def test_training_logits_have_the_official_numbers():
    case = Case("cffm", "cffm_b1_train")
    model = build_filled(build_segmentor, case.config, mode="train")
    img = case.inputs()["img"]
    case.check("seg_logits", model.decode_head(model.backbone(img.flatten(0, 1)), *img.shape[:2]))


def test_optimiser_steps_have_the_official_numbers():
    check_steps(Case("cffm", "cffm_b1_steps"))


@pytest.mark.parametrize("size", ["b0", "b1", "b2", "b5"])
@pytest.mark.parametrize("system", ["cffm", "cffmpp"])
def test_state_dict_has_the_official_names(system, size):
    expected = Case("cffm", "state_dicts")["expected"]["heads"][f"{system}_{size}"]
    config = copy.deepcopy(Case("cffm", f"{system}_b1_seg").config)
    config["backbone"]["type"] = f"mit_{size}"
    if size == "b0":
        config["decode_head"]["in_channels"] = [32, 64, 160, 256]
    config["decode_head"]["decoder_params"]["depths"] = {"b0": 1, "b1": 2, "b2": 2, "b5": 4}[size]
    with torch.device("meta"):
        head = build_head(config["decode_head"])
    assert {k: list(v.shape) for k, v in head.state_dict().items()} == expected["head"]
    assert list(head.state_dict()) == list(expected["head"])
    count = sum(p.numel() for p in head.parameters()) + expected["backbone_parameters"]
    assert count == expected["parameters"]


def test_initialisation_is_the_official_one():
    torch.manual_seed(0)
    model = build_segmentor(Case("cffm", "cffmpp_b1_seg").config)
    expected = Case("cffm", "init_b1")["expected"]
    for name, p in model.decode_head.named_parameters():
        want = expected[f"decode_head.{name}"]
        if "constant" in want:
            assert (p == want["constant"]).all(), name
            continue
        slack = 4 / (2 * want["count"]) ** 0.5
        assert abs(p.std().item() / want["std"] - 1) < slack + 0.02, name
        assert p.abs().max().item() < 1.5 * want["absmax"], name
        assert abs(p.mean().item()) < 5 * want["std"] / p.numel() ** 0.5 + 1e-8, name


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
def test_stream_equals_whole_clips(size):
    model = tiny_model(decoder_params=dict(embed_dim=256, depths=2))
    torch.manual_seed(1)
    video = torch.randn(12, 3, *size)
    stream = model.stream()
    for t, img in enumerate(video):
        clip = video[inference_clip(t)][None]
        whole = model.encode_decode(clip)[0]
        torch.testing.assert_close(stream.step(img), whole, atol=1e-5, rtol=1e-5)
        expected = reference.encode_decode(model, clip)[0]
        torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)
        assert (whole.argmax(0) == expected.argmax(0)).float().mean() >= 0.9999


@pytest.mark.parametrize("num_clips", [3, 5])
def test_other_clip_lengths(num_clips):
    model = tiny_model(num_clips=num_clips)
    clip = torch.randn(2, num_clips, 3, 64, 64)
    expected = reference.encode_decode(model, clip)
    torch.testing.assert_close(model.encode_decode(clip), expected, atol=1e-4, rtol=1e-4)


def test_stream_keeps_nine_frames():
    model = tiny_model()
    stream = model.stream()
    for _ in range(14):
        stream.step(torch.randn(3, 64, 64))
    assert len(stream._references) == 9


def test_dropout_ratio_zero_trains():
    model = build_segmentor(tiny_config(dropout_ratio=0)).train()
    batch = {
        "img": torch.randn(1, 4, 3, 64, 64),
        "gt_semantic_seg": torch.randint(0, 9, (1, 4, 1, 64, 64)),
    }
    assert model.loss(batch)["decode.loss_seg"].isfinite()


def test_wrong_clip_lengths_are_reported():
    with pytest.raises(ConfigError, match="num_clips = 2"):
        build_head(tiny_config(num_clips=2)["decode_head"])
    model = build_segmentor(tiny_config()).train()
    with pytest.raises(ConfigError, match="3 frames"):
        model.loss({"img": torch.randn(1, 3, 3, 64, 64), "gt_semantic_seg": torch.zeros(1, 3, 1, 64, 64).long()})
