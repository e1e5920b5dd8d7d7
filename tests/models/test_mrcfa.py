"""MRCFA: official numbers, streams against whole clips, and settings that cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmseg.errors import ConfigError, DataError
from mmseg.models import build_head, build_segmentor
from mmseg.models.layers.resize import resize
from tests.golden_cases import Case, build_filled
from tests.models.training_cases import check_steps, check_training, train_batch
from tests.reference import mrcfa as reference


def inputs_of(case: Case, *names: str) -> list[torch.Tensor]:
    inputs = case.inputs()
    return [inputs[name] for name in names]


def head_of(case: Case) -> torch.nn.Module:
    return build_filled(build_head, case.config)


@pytest.mark.parametrize("name", ["mrcfa_b1_head", "mrcfa_b0_head", "mrcfa_b1_head_resized", "mrcfa_b1_head_1frame"])
@torch.no_grad()
def test_head_has_the_official_numbers(name):
    case = Case("mrcfa", name)
    head = head_of(case)
    feats = inputs_of(case, "c1", "c2", "c3", "c4")
    fused = head.fuse(feats)
    case.check("fused", fused)
    case.check("logits", head(feats, case["batch_size"], case["num_clips"]))
    if "aux" in case["outputs"]:
        case.check("aux", head.frame_logits(fused))


@pytest.mark.parametrize("name", ["mrcfa_b1_head", "mrcfa_b0_head", "mrcfa_b1_head_resized", "mrcfa_b1_head_1frame"])
@torch.no_grad()
def test_every_intermediate_of_the_reference_is_official(name):
    case = Case("mrcfa", name)
    head, clips = head_of(case), (case["batch_size"], case["num_clips"])
    feats = inputs_of(case, "c1", "c2", "c3", "c4")
    found = {"logits": reference.forward(head, feats, *clips), "fused": reference.fused_feature(head, feats)}
    found["aux"] = reference.frame_logits(head, found["fused"])
    if clips[1] == head.num_clips:
        maps = [x.unflatten(0, clips) for x in (*feats, found["fused"])]
        found.update(reference.gather(head, maps[:4], maps[4]))
    for output, spec in case["outputs"].items():
        case.check(output, found[output].reshape(spec["shape"]))


@pytest.mark.parametrize("name", ["mrcfa_b1_seg", "mrcfa_b0_seg", "mrcfa_b0_seg_1frame"])
@pytest.mark.parametrize("of", ["product", "reference"])
def test_segmentor_has_the_official_numbers(name, of):
    case = Case("mrcfa", name)
    model = build_filled(build_segmentor, case.config)
    encode_decode = type(model).encode_decode if of == "product" else reference.encode_decode
    logits = encode_decode(model, case.inputs()["img"])
    case.check("logits_in", logits)
    logits = resize(logits, case["ori_shape"])
    case.check("logits_ori", logits)
    assert np.mean(logits.argmax(1).numpy() == case.arrays["pred"]) >= 0.9999


def test_stream_has_the_official_numbers_and_those_of_whole_clips():
    case = Case("mrcfa", "mrcfa_b0_video")
    model = build_filled(build_segmentor, case.config)
    frames = case.inputs()["img"][0]
    stream = model.stream()
    steps = torch.stack([stream.step(frame) for frame in frames])
    case.check("logits_in", steps)
    wrong = (resize(steps, case["ori_shape"]).argmax(1).numpy() != case.arrays["pred"]).mean()
    assert wrong <= 1e-4
    for step, clip in zip(steps, case["facts"]["clips"]):
        torch.testing.assert_close(step, model.encode_decode(frames[clip][None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", [None, reference.loss], ids=["product", "reference"])
@pytest.mark.parametrize("name", ["mrcfa_b1_train", "mrcfa_b0_train_wide"])
def test_training_step_has_the_official_numbers(name, loss):
    check_training(Case("mrcfa", name), loss)


def test_training_logits_have_the_official_numbers():
    case = Case("mrcfa", "mrcfa_b1_train")
    model = build_filled(build_segmentor, case.config, mode="train")
    img = train_batch(case)["img"]
    case.check("seg_logits", model.decode_head(model.backbone(img.flatten(0, 1)), *img.shape[:2]))


def test_optimiser_steps_have_the_official_numbers():
    check_steps(Case("mrcfa", "mrcfa_b1_steps"))


@pytest.mark.parametrize("size", ["b0", "b1", "b2", "b5"])
def test_state_dict_has_the_official_names_and_shapes(size):
    expected = Case("mrcfa", "state_dicts")["expected"]["heads"][f"mrcfa_{size}"]
    config = {**Case("mrcfa", "mrcfa_b1_head").config, "backbone": size}
    if size == "b0":
        config["in_channels"] = [32, 64, 160, 256]
    state = build_head(config).state_dict()
    assert [(k, list(v.shape)) for k, v in state.items()] == list(expected.items())


def test_initial_weights_are_distributed_as_in_the_official_code():
    torch.manual_seed(0)
    model = build_segmentor(Case("mrcfa", "mrcfa_b1_seg").config)
    parameters = dict(model.named_parameters())
    for name, expected in Case("mrcfa", "init_b1")["expected"].items():
        value = parameters[name].detach()
        if "constant" in expected:
            assert (value == expected["constant"]).all(), name
        elif value.numel() > 500:
            assert abs(value.std() - expected["std"]) < 4 / (2 * value.numel()) ** 0.5 * expected["std"] * 1.5, name
            bounded = expected["absmax"] < 1.8 * expected["std"]  # uniform; a normal one goes farther
            assert (value.abs().max() < 1.8 * expected["std"]) == bounded, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(hypercorre=False), "hypercorre=False"),
        (dict(cityscape=True), "cityscape=True"),
        (dict(num_clips=5), "num_clips=5"),
        (dict(decoder_params=dict(embed_dim=128)), "embed_dim=128"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_head({**Case("mrcfa", "mrcfa_b0_head").config, **settings})


@pytest.mark.parametrize("size", [(64, 64), (90, 128), (128, 90), (56, 128), (128, 56)])
def test_sizes_that_cannot_work(size):
    """Too few positions at stride 32; odd height, odd width at stride 4; 3 modulo 4 at stride 8."""
    model = build_filled(build_segmentor, Case("mrcfa", "mrcfa_b0_seg").config)
    with pytest.raises(DataError, match="multiples of 32"):
        model.encode_decode(torch.zeros(1, 4, 3, *size))
    assert model.encode_decode(torch.zeros(1, 1, 3, *size)).shape[-2:] == size  # single frames need no references
    with pytest.raises(DataError, match="multiples of 32"):
        model.train().loss({"img": torch.zeros(1, 4, 3, *size), "gt_semantic_seg": torch.zeros(1, 4, 1, *size).long()})


@pytest.mark.parametrize("size", [(32, 160), (160, 32), (72, 144), (144, 72)])
def test_sizes_that_just_work(size):
    model = build_filled(build_segmentor, Case("mrcfa", "mrcfa_b0_seg").config)
    imgs = torch.randn(1, 4, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.encode_decode(imgs), reference.encode_decode(model, imgs), rtol=1e-3, atol=1e-4)


def test_no_dropout_is_possible():
    head = build_head({**Case("mrcfa", "mrcfa_b0_head").config, "dropout_ratio": 0})
    assert head.dropout.p == 0


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_autocast_changes_the_logits_little_and_the_selection_not_at_all(mode):
    case = Case("mrcfa", "mrcfa_b1_train")
    model = build_filled(build_segmentor, case.config, mode=mode)
    clip = train_batch(case)["img"]
    chosen, select = [], model.decode_head.hypercorre_module.select
    model.decode_head.hypercorre_module.select = lambda *args: chosen.append(select(*args)) or chosen[-1]
    feats = [feat.detach() for feat in model.backbone(clip.flatten(0, 1))]
    with torch.no_grad():
        exact = model.decode_head(feats, *clip.shape[:2])
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.decode_head(feats, *clip.shape[:2])
    assert torch.equal(*chosen)
    assert (rounded.float() - exact).abs().mean() < 0.02 * exact.std()


def test_a_training_step_under_autocast():
    case = Case("mrcfa", "mrcfa_b1_train")
    model = build_filled(build_segmentor, case.config, mode="train")
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(train_batch(case))["decode.loss_seg"]
    loss.backward()
    assert abs(loss.item() - case.arrays["log/decode.loss_seg"].item()) < 0.1
