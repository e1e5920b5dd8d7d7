"""HFAN: official numbers by the product and by the formulas, names, initial weights, and what is skipped."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmseg.engine.answers import undo
from mmseg.engine.step import norms_to_synchronise
from mmseg.models import build_head, build_segmentor
from mmseg.models.decode_heads.hfan.head import FusionBlock
from mmseg.models.layers.resize import resize
from mmseg.structures import Flipped, Resized
from tests.golden_cases import Case, Undrawn, build_filled
from tests.models.training_cases import check_steps, train_batch
from tests.reference import hfan as reference

METHODS = ("im", "fw", "base", "fam", "fat", "hfan")
both = pytest.mark.parametrize("of", ["product", "reference"])


def block_of(case: Case, mode: str = "eval") -> FusionBlock:
    kind = case.config["kind"]

    def build(config: dict) -> FusionBlock:
        return FusionBlock(config["channels"], aligns=kind != "fat", adapts=kind != "fam")

    return build_filled(build, case.config, mode)


def model_config(method: str = "hfan", **head) -> dict:
    """HFAN with MiT-B0."""
    config = copy.deepcopy(Case("hfan", "hfan_b1_seg").config)
    config["backbone"]["ori_type"] = "mit_b0"
    config["decode_head"].update(in_channels=[32, 64, 160, 256], select_method=method, **head)
    return config


def check_all(case: Case, found: dict, *others: str) -> None:
    """Every stored output is among `found`, except `others`, and is equal."""
    for name in case["outputs"]:
        if not name.startswith(tuple(others)):
            case.check(name, found[name])


# ---------------------------------------------------------------------- blocks


@pytest.mark.parametrize("name", ["fam_block", "fat_block", "hfan_block", "hfan_block_c320"])
@torch.no_grad()
def test_block_has_the_official_numbers(name):
    case = Case("hfan", name)
    block, inputs = block_of(case), case.inputs()
    check_all(case, reference.fuse(block, case.config["kind"], inputs["im"], inputs["fw"]))
    case.check("out", block(inputs["im"], inputs["fw"]))
    case.check("out", block.fold()(torch.cat([inputs["im"], inputs["fw"]])))
    state = {n: list(value.shape) for n, value in block.state_dict().items()}
    assert state == {**case["state"], **case["state_int"]}
    assert [n for n in state if n in case["state"]] == list(case["state"])


@both
@pytest.mark.parametrize("name", ["fam_block_train", "fat_block_train", "hfan_block_train"])
def test_training_of_a_block_has_the_official_numbers(name, of):
    case = Case("hfan", name)
    block, inputs = block_of(case, "train"), case.inputs()
    im, fw = (inputs[key].requires_grad_() for key in ("im", "fw"))
    counters = tuple(n for n in case["outputs"] if n.endswith("num_batches_tracked"))  # the formulas do not count
    if of == "product":
        out = block(im, fw)
        found, others = {"out": out}, tuple(reference_names(case))
    else:
        found = reference.fuse(block, case.config["kind"], im, fw)
        out, others = found["out"], counters
    (out * inputs["up"]).sum().backward()
    found.update(grad_im=im.grad, grad_fw=fw.grad)
    found.update({f"grad/{n}": p.grad.norm() for n, p in block.named_parameters()})
    found.update({f"bn/{n}": b for n, b in block.named_buffers()})
    check_all(case, found, *others)


def reference_names(case: Case) -> list[str]:
    """Intermediate results, which only the formulas show."""
    return [n for n in case["outputs"] if n != "out" and not n.startswith(("grad", "bn/"))]


# ---------------------------------------------------------------------- models


@both
@torch.no_grad()
def test_head_has_the_official_numbers(of):
    case = Case("hfan", "hfan_b1_head")
    head, inputs = build_filled(build_head, case.config), case.inputs()
    feats = [inputs[f"c{s}"] for s in (1, 2, 3, 4)]
    found, others = of_head(head, feats, of)
    check_all(case, found, *others)


def of_head(head: nn.Module, feats: list[torch.Tensor], of: str) -> tuple[dict, tuple[str, ...]]:
    """What a head makes of the maps, under the names of the cases, and the names that it does not show."""
    found = {}
    if of == "product":
        for s, out in enumerate(head.fuse_streams(feats, head.fold()), start=1):
            found[f"s{s}.out"] = out
        found.update(fused=head.fuse(feats), head=head(feats))
        parts = ("object", "context", "fam_im", "fam_fw", "sum", "local", "global", "weight")
        return found, ("linear_c", *(f"s{s}.{part}" for s in (1, 2, 3, 4) for part in parts))
    outs = []
    for s, maps in enumerate(feats, start=1):
        parts = reference.fuse_stage(head, s, *maps.chunk(2))
        found.update({f"s{s}.{name}": value for name, value in parts.items()})
        outs.append(parts["out"])
        layer = getattr(head, f"linear_c{s}").proj
        found[f"linear_c{s}"] = layer(parts["out"].flatten(2).transpose(1, 2))
    found["fused"] = reference.fused_feature(head, outs)
    found["head"] = reference.forward(head, feats)
    return found, ()


@both
@pytest.mark.parametrize("name", [*(f"{method}_b1_seg" for method in METHODS), "hfan_r101_seg"])
@torch.no_grad()
def test_segmentor_has_the_official_numbers(name, of):
    case = Case("hfan", name)
    model = build_filled(build_segmentor, case.config)
    img = case.inputs()["img"]
    feats = model.backbone(img)
    found, others = of_head(model.decode_head, feats, of)
    found.update({f"stage{s}": maps for s, maps in enumerate(feats, start=1)})
    encode_decode = type(model).encode_decode if of == "product" else reference.encode_decode
    found["logits_in"] = encode_decode(model, img)
    found["logits_ori"] = resize(found["logits_in"], case["ori_shape"])
    found["prob"] = found["logits_ori"].softmax(1)
    check_all(case, found, "pred", *others)
    assert np.mean(found["prob"].argmax(1).numpy() == case.arrays["pred"]) >= 0.9999


@both
@pytest.mark.parametrize("name", ["hfan_b1_slide", "hfan_b1_slide_grid"])
def test_windows_have_the_official_numbers(name, of):
    case = Case("hfan", name)
    model = build_filled(build_segmentor, case.config)
    img = case.inputs()["img"]
    encode_decode = type(model).encode_decode if of == "product" else reference.encode_decode
    logits = encode_decode(model, img)
    case.check("logits_in", logits)
    case.check("logits_ori", resize(logits, case["ori_shape"]))
    case.check("prob", resize(logits, case["ori_shape"]).softmax(1))
    case.check("logits_in", torch.stack([model.stream().step(frame) for frame in img]))


@pytest.mark.parametrize("name", ["hfan_b1_aug", "hfan_b1_aug_whole"])
def test_augmentation_has_the_official_numbers(name):
    """Scales and mirrored ones, brought back as the test loop does it."""
    case = Case("hfan", name)
    model, size = build_filled(build_segmentor, case.config), tuple(case["ori_shape"])
    found = []
    for img in case.inputs().values():
        for mirrored in (False, True):
            view = img.flip(3) if mirrored else img
            steps = [Resized(size), *([Flipped(tuple(img.shape[2:]))] if mirrored else [])]
            logits = model.encode_decode(view)
            found.append(torch.stack([undo(x, tuple(img.shape[2:]), steps, size) for x in logits]).softmax(1))
    for number, probabilities in enumerate(found):
        case.check(f"prob{number}", probabilities)
    mean = torch.stack(found).mean(0)
    case.check("prob_mean", mean)
    assert np.mean(mean.argmax(1).numpy() == case.arrays["pred"]) >= 0.9999


@both
@pytest.mark.parametrize("name", ["hfan_b1_train", "fam_b1_train"])
def test_training_step_has_the_official_numbers(name, of):
    case = Case("hfan", name)
    model = build_filled(build_segmentor, case.config, "train")
    loss = type(model).loss if of == "product" else reference.loss
    losses = loss(model, train_batch(case))
    losses["decode.loss_seg"].backward()
    state = model.state_dict()
    grads = {n: p.grad for n, p in model.named_parameters()}
    found = {"log/decode.loss_seg": losses["decode.loss_seg"], "log/decode.acc_seg": losses["decode.acc_seg"]}
    found["log/loss"] = losses["decode.loss_seg"]
    found.update({f"grad/{n}": g.norm() for n, g in grads.items() if g is not None})
    found["grad/total"] = torch.stack([g.norm() for g in grads.values() if g is not None]).norm()
    found.update({f"bn/{n}": value for n, value in state.items()})
    check_all(case, found, "seg_logits")
    assert [n for n, g in grads.items() if g is None] == case["facts"]["none_grad"]
    tiny = {n for n, g in grads.items() if g is not None and g.norm() < 1e-6}
    assert tiny == set(case["facts"]["tiny_grad"])
    if of == "product":
        for norm, count in case["facts"]["num_batches_tracked"].items():
            assert state[f"{norm}.num_batches_tracked"] == count


def test_training_logits_have_the_official_numbers():
    case = Case("hfan", "hfan_b1_train")
    model = build_filled(build_segmentor, case.config, "train")
    case.check("seg_logits", model.decode_head(model.backbone(train_batch(case)["img"])))


@pytest.mark.parametrize("name", ["hfan_b1_steps_160k", "hfan_b1_steps_refine"])
def test_optimiser_steps_have_the_official_numbers(name):
    check_steps(Case("hfan", name))


@pytest.mark.parametrize("key", Case("hfan", "state_dicts")["expected"])
def test_state_dict_has_the_official_names_and_shapes(key):
    backbone, method = key.split("/")
    expected = Case("hfan", "state_dicts")["expected"][key]
    config = copy.deepcopy(Case("hfan", "hfan_r101_seg" if backbone == "r101" else "hfan_b1_seg").config)
    if backbone != "r101":
        config["backbone"]["ori_type"] = f"mit_{backbone}"
    if backbone == "b0":
        config["decode_head"]["in_channels"] = [32, 64, 160, 256]
    dim = Case("hfan", "state_dicts").config["embed_dim"][backbone]
    config["decode_head"].update(select_method=method, decoder_params=dict(embed_dim=dim))
    with torch.device("meta"), Undrawn():
        model = build_segmentor(config)
    state = {k: list(v.shape) for k, v in model.decode_head.state_dict().items() if v.is_floating_point()}
    assert list(state.items()) == [(k, v) for k, v in expected["head_state"].items() if "num_batches" not in k]
    assert len(model.state_dict()) == expected["state_entries"]
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]
    assert sum(p.numel() for p in model.decode_head.parameters()) == expected["head_parameters"]


def test_initial_weights_are_distributed_as_in_the_official_code():
    torch.manual_seed(0)
    state = build_segmentor(Case("hfan", "init_b1").config).decode_head.state_dict()
    for name, expected in Case("hfan", "init_b1")["expected"].items():
        value = state[name].double()
        if expected["std"] == 0:
            assert (value == expected["mean"]).all(), name
        elif value.numel() > 500:
            assert abs(value.std() - expected["std"]) < 4 / (2 * value.numel()) ** 0.5 * expected["std"] * 1.5, name
            bounded = expected["absmax"] < 1.8 * expected["std"]  # uniform; a normal one goes farther
            assert (value.abs().max() < 1.8 * expected["std"]) == bounded, name


# ---------------------------------------------------------------------- what is skipped, and what is synchronised


@pytest.mark.parametrize("method", METHODS)
def test_one_stream_is_not_computed_where_only_the_other_is_looked_at(method):
    model = build_filled(build_segmentor, model_config(method))
    seen = []
    model.backbone.backbone.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    img = torch.randn(2, 6, 64, 96, generator=torch.Generator().manual_seed(0))
    got = model.encode_decode(img)
    assert sum(seen) == (2 if method in ("im", "fw") else 4)
    torch.testing.assert_close(got, reference.encode_decode(model, img), rtol=1e-4, atol=1e-4)
    other = img.clone()
    other[:, 3:] = 0
    assert torch.equal(model.encode_decode(other), got) == (method == "im")


@pytest.mark.parametrize(("kind", "pictures"), [("mit_b0", 2), ("ResNet", 4)])
def test_norms_of_a_backbone_see_both_streams_in_training(kind, pictures):
    config = model_config("im")
    if kind == "ResNet":
        config["backbone"] = dict(type="HFANVOS", ori_type="ResNet", depth=18)
        config["decode_head"]["in_channels"] = [64, 128, 256, 512]
    model, seen = build_segmentor(config).train(), []
    model.backbone.backbone.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    batch = dict(img=torch.randn(2, 6, 64, 64), gt_semantic_seg=torch.zeros(2, 1, 64, 64).long())
    model.loss(batch)["decode.loss_seg"].backward()
    assert seen == [pictures]


def test_norms_of_the_blocks_are_never_synchronised():
    model = build_segmentor(model_config())
    assert norms_to_synchronise(model, model.synchronised_norms) == ["decode_head.linear_fuse.bn"]
    model = build_segmentor(Case("hfan", "hfan_r101_seg").config)
    names = norms_to_synchronise(model, model.synchronised_norms)
    assert len(names) == 105 and not any("hfan1" in name for name in names)


def test_region_maps_without_a_positive_value_are_uniform():
    """The ReLU leaves nothing of them: both regions are the mean, and the keys coincide."""
    block = block_of(Case("hfan", "hfan_block"))
    nn.init.constant_(block.object_pred.conv.bias, -100.0)
    im, fw = Case("hfan", "hfan_block").inputs().values()
    context = reference.align(block, im, fw)["context"]
    torch.testing.assert_close(context, im.mean((2, 3))[:, :, None, None].expand_as(context))
    with torch.no_grad():
        folded = block.fold()(torch.cat([im, fw]))
    torch.testing.assert_close(folded, block(im, fw), rtol=1e-4, atol=1e-4)
