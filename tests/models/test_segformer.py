"""The per-frame head and its segmentor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmseg.errors import ConfigError, DataError
from mmseg.models import build_head, build_segmentor
from tests.golden_cases import Case, build_filled
from tests.reference import segformer as reference

CHANNELS = [32, 64, 160, 256]


def head_config(**kwargs) -> dict:
    config = dict(copy.deepcopy(Case("cffm", "segformer_b0_head").config), num_classes=7)
    return {**config, **kwargs}


def segmentor_config(**kwargs) -> dict:
    return dict(type="EncoderDecoder", pretrained=None, backbone=dict(type="mit_b0"), decode_head=head_config(**kwargs))


def feats(n: int = 3, h: int = 16, w: int = 24, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, h >> s, w >> s, generator=generator) for s, c in enumerate(CHANNELS)]


@pytest.mark.parametrize("grad", [False, True])
def test_official_numbers(grad):
    case = Case("cffm", "segformer_b0_head")
    head = build_filled(build_head, case.config)
    fused = []
    head.linear_fuse.register_forward_hook(lambda _m, _i, out: fused.append(out))
    inputs = case.inputs()
    maps = [inputs[f"c{s}"] for s in (1, 2, 3, 4)]
    with torch.set_grad_enabled(grad):
        logits = head(maps)
    case.check("fused", fused[0])
    case.check("logits", logits)
    case.check("fused", reference.fused_feature(head, maps))
    case.check("logits", reference.forward(head, maps))
    assert list(head.state_dict()) == list(case["state"])


@pytest.mark.parametrize("fuse_norm", ["BN", "GN"])
@pytest.mark.parametrize("training", [False, True])
def test_folding_equals_the_reference_with_its_gradients(fuse_norm, training):
    results = []
    for forward in (nn.Module.__call__, reference.forward):
        head = build_filled(build_head, head_config(fuse_norm=fuse_norm), "train").train(training)
        inputs = [x.requires_grad_() for x in feats(h=16, w=24)]
        logits = forward(head, inputs)
        logits.square().mean().backward()
        grads = [p.grad for name, p in head.named_parameters() if "conv_seg" not in name]
        buffers = [b.clone() for b in head.buffers() if b.is_floating_point()]
        results.append([logits, *[x.grad for x in inputs], *grads, *buffers])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-5)


def test_folding_without_a_graph_equals_the_reference():
    head = build_filled(build_head, head_config(fuse_norm="BN"))
    inputs = feats(h=13, w=22)
    with torch.no_grad():
        ours = head.frame_logits(head.fuse(inputs, head.fold_fuse()))
        expected = reference.forward(head, inputs)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_variant_has_the_names_of_the_clip_heads():
    names = list(build_head(head_config(fuse_norm="BN")).state_dict())
    assert "linear_fuse.bn.running_mean" in names and not any(".gn." in name for name in names)


@pytest.mark.parametrize("dropout_ratio", [0, 0.5])
def test_dropout_ratio(dropout_ratio):
    head = build_head(head_config(dropout_ratio=dropout_ratio)).train()
    fused = torch.rand(4, 256, 5, 5)
    twice = [head.frame_logits(fused) for _ in range(2)]
    assert torch.equal(*twice) == (dropout_ratio == 0)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(in_channels=[32, 64, 160]),
        dict(in_index=[0, 1, 2, 2]),
        dict(feature_strides=[8, 16, 32, 64]),
        dict(align_corners=True),
        dict(fuse_norm="LN"),
        dict(loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True)),
        dict(loss_decode=dict(type="CrossEntropyLos")),
        dict(dropout_ratio=1.5),
        dict(num_classes=0),
        dict(num_classes=256),
        dict(ignore_index=-1),
        dict(decoder_params=dict(embed_dims=256)),
        dict(decoder_params=dict(embed_dim=0)),
        dict(in_channels=[32, 64, 160, 0]),
        dict(channels="128"),
        dict(num_clases=3),
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_values_that_cannot_work_are_reported(wrong):
    with pytest.raises(ConfigError):
        build_head(head_config(**wrong))


def test_every_frame_of_a_clip_is_supervised():
    """A clip of three frames gives the loss and accuracy of three images."""
    torch.manual_seed(0)
    model = build_filled(build_segmentor, segmentor_config(), "train")
    imgs, labels = torch.randn(2, 3, 3, 64, 64), torch.randint(0, 7, (2, 3, 1, 64, 64))
    labels[torch.rand(labels.shape) < 0.3] = 255
    clips = model(dict(img=imgs, gt_semantic_seg=labels))
    images = model(dict(img=imgs.flatten(0, 1), gt_semantic_seg=labels.flatten(0, 1)))
    assert set(clips) == {"decode.loss_seg", "decode.acc_seg"}
    for name, value in clips.items():
        assert value.ndim == 0
        torch.testing.assert_close(value, images[name])


def test_stream_equals_single_images():
    torch.manual_seed(0)
    model = build_filled(build_segmentor, segmentor_config())
    imgs = torch.randn(1, 3, 3, 61, 83)
    stream = model.stream("video")
    logits = [stream.step(img) for img in imgs[0]]
    for t, frame_logits in enumerate(logits):
        assert frame_logits.shape == (7, 61, 83) and not frame_logits.requires_grad
        torch.testing.assert_close(frame_logits[None], model.encode_decode(imgs[:, : t + 1]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(frame_logits[None], model.encode_decode(imgs[:, t]), rtol=1e-4, atol=1e-5)
    expected = reference.encode_decode(model, imgs)
    torch.testing.assert_close(logits[-1][None], expected, rtol=1e-4, atol=1e-4)


def test_stream_refuses_another_frame_size_until_reset():
    stream = build_segmentor(segmentor_config()).eval().stream()
    stream.step(torch.zeros(3, 64, 64))
    with pytest.raises(DataError, match=r"\(3, 64, 96\)"):
        stream.step(torch.zeros(3, 64, 96))
    with pytest.raises(DataError):
        stream.step(torch.zeros(1, 3, 64, 64))
    stream.reset()
    assert stream.count == 0 and stream.step(torch.zeros(3, 64, 96)).shape == (7, 64, 96)


def test_training_mode_is_refused_for_inference():
    model = build_segmentor(segmentor_config())
    for use in (lambda: model.stream(), lambda: model.encode_decode(torch.zeros(1, 1, 3, 64, 64))):
        with pytest.raises(ConfigError, match=r"eval\(\)"):
            use()
    stream = model.eval().stream()
    model.train()
    with pytest.raises(ConfigError, match=r"eval\(\)"):
        stream.step(torch.zeros(3, 64, 64))


def test_other_test_modes_are_refused():
    with pytest.raises(ConfigError, match="slide"):
        build_segmentor({**segmentor_config(), "test_cfg": dict(mode="slide", crop_size=(64, 64))})


def test_train_and_test_cfg_may_stand_outside_the_model():
    build_segmentor(segmentor_config(), train_cfg=dict(), test_cfg=dict(mode="whole"))
    with pytest.raises(ConfigError, match="both inside and outside"):
        build_segmentor({**segmentor_config(), "test_cfg": dict(mode="whole")}, test_cfg=dict(mode="whole"))


def test_activation_checkpointing_key_reaches_the_backbone():
    assert build_segmentor({**segmentor_config(), "activation_checkpointing": True}).backbone.with_cp
    assert not build_segmentor(segmentor_config()).backbone.with_cp


@pytest.mark.parametrize("name", ["mit_b1", "mit_b0"])
def test_a_head_for_other_maps_than_those_of_the_backbone_is_reported(name):
    channels = {"mit_b0": [32, 64, 160, 256], "mit_b1": [64, 128, 320, 512]}
    other = channels["mit_b1" if name == "mit_b0" else "mit_b0"]
    config = {**segmentor_config(in_channels=other), "backbone": dict(type=name)}
    with pytest.raises(ConfigError, match=rf"(?s)in_channels.*expected: \[{channels[name][0]}, "):
        build_segmentor(config)


def test_two_files_to_start_from_are_refused():
    backbone = dict(type="mit_b0", init_cfg=dict(type="Pretrained", checkpoint="a.pth"))
    with pytest.raises(ConfigError, match=r"beside model\.backbone\.init_cfg"):
        build_segmentor({**segmentor_config(), "backbone": backbone, "pretrained": "b.pth"})


@pytest.mark.parametrize("value", [dict(type="SyncBN", requires_grad=True), dict(type="BN")])
def test_norm_cfg_that_asks_for_something_else_is_answered_in_the_log(value, caplog):
    build_head(head_config(fuse_norm="BN", norm_cfg=value))
    assert ("norm_cfg" in caplog.text) == (value == dict(type="BN"))


def test_train_cfg_that_asks_for_something_is_answered_in_the_log(caplog):
    build_segmentor({**segmentor_config(), "train_cfg": dict()})
    assert "train_cfg" not in caplog.text
    build_segmentor(segmentor_config(), train_cfg=dict(work_dir="somewhere"))
    assert "model.train_cfg" in caplog.text


def test_channels_dropped_by_the_weights_are_those_of_the_dropout():
    """In training no dropped-out map is made; draws, values and gradients are those of the formula."""
    torch.manual_seed(0)
    head = build_head(dict(type="SegFormerHead", in_channels=[8] * 4, channels=8, num_classes=5, dropout_ratio=0.4))
    fused = torch.randn(3, 256, 6, 7, requires_grad=True)
    found = []
    for logits in (head.train().frame_logits, lambda x: reference.frame_logits(head, x)):
        torch.manual_seed(1)
        out = logits(fused)
        found.append([out, *torch.autograd.grad(out.square().sum(), [fused, *head.linear_pred.parameters()])])
    assert (found[0][1].abs().amax((2, 3)) == 0).float().mean() > 0.2
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
