"""Parameter groups against the official ones, and what an optimiser's state may be restored from."""

import pytest
import torch
from torch import nn

from mmseg.engine.optim import build_optimizer, load_optimizer_state
from mmseg.errors import CheckpointError, ConfigError
from mmseg.models import build_segmentor
from tests.golden_cases import Case

ADAMW = {"type": "AdamW", "lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.01}


@pytest.mark.parametrize(("folder", "train_case"), [("cffm", "cffm_b1_train"), ("mrcfa", "mrcfa_b1_train")])
def test_official_parameter_groups(folder, train_case):
    case = Case(folder, "param_groups_b1")
    model = build_segmentor(Case(folder, train_case).config)
    optimizer = build_optimizer(model, case.config)
    groups = {group["name"]: [group["lr"], group["weight_decay"]] for group in optimizer.param_groups}
    assert list(groups) == list(case["expected"])
    for name, expected in case["expected"].items():
        assert groups[name] == pytest.approx(expected, rel=1e-9), name
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
        assert group["params"] == [parameters[group["name"]]]


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(3, 2), "norm": nn.LayerNorm(2), "norm_head": nn.Linear(2, 2)})


def test_longest_key_decides_alone():
    keys = {"norm": {"decay_mult": 0.0}, "head": {"lr_mult": 10.0}, "norm_head": {"lr_mult": 0.5, "decay_mult": 3.0}}
    optimizer = build_optimizer(two_layers(), {**ADAMW, "paramwise_cfg": {"custom_keys": keys}})
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found["head.bias"] == pytest.approx((1.0, 0.01))
    assert found["norm.weight"] == pytest.approx((0.1, 0.0))
    assert found["norm_head.weight"] == pytest.approx((0.05, 0.03))


def test_every_parameter_is_in_and_one_without_gradient_stays():
    model = two_layers()
    model["norm"].requires_grad_(False)
    optimizer = build_optimizer(model, ADAMW)
    assert len(optimizer.param_groups) == len(list(model.parameters()))
    before = {name: p.clone() for name, p in model.named_parameters()}
    model["head"](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam"])
def test_any_optimiser_of_torch(name):
    optimizer = build_optimizer(two_layers(), {"type": name, "lr": 0.1, "weight_decay": 0.5})
    assert type(optimizer) is getattr(torch.optim, name)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "AdamWW", "lr": 0.1}, "did you mean 'AdamW'"),
        ({"type": "AdamW", "wight_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"type": "AdamW", "paramwise_cfg": {"custom_key": {}}}, "did you mean 'custom_keys'"),
        ({"type": "AdamW", "paramwise_cfg": {"custom_keys": {"head": {"lr_mul": 1}}}}, "did you mean 'lr_mult'"),
        ({"lr": 0.1}, "optimizer.type = None"),
    ],
)
def test_mistakes_are_named(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(two_layers(), cfg)


def stepped(model: nn.Module, steps: int, cfg: dict) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, cfg)
    for step in range(steps):
        optimizer.zero_grad()
        model["head"](torch.full((1, 3), 1.0 + step)).square().sum().backward()
        optimizer.step()
    return optimizer


def test_state_goes_on_and_settings_come_from_the_config():
    first = two_layers()
    saved = stepped(first, 2, ADAMW).state_dict()
    second = two_layers()
    optimizer = build_optimizer(second, {**ADAMW, "lr": 0.3, "weight_decay": 0.0})
    load_optimizer_state(optimizer, saved, "iter_2.pth")
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.3, 0.0)}
    restored = optimizer.state[second["head"].weight]
    assert torch.equal(restored["exp_avg"], saved["state"][0]["exp_avg"])
    assert float(restored["step"]) == 2
    assert second["norm"].weight not in optimizer.state


def test_state_of_an_official_file():
    """mmcv: groups without names, steps as plain numbers."""
    saved = stepped(two_layers(), 3, ADAMW).state_dict()
    for group in saved["param_groups"]:
        del group["name"]
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    model = two_layers()
    optimizer = build_optimizer(model, ADAMW)
    load_optimizer_state(optimizer, saved, "iter_3.pth")
    model["head"](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert float(optimizer.state[model["head"].weight]["step"]) == 4


def test_state_of_another_model_is_refused():
    model = two_layers()
    saved = stepped(two_layers(), 1, ADAMW).state_dict()
    with pytest.raises(CheckpointError, match="optimiser state"):
        load_optimizer_state(build_optimizer(model["head"], ADAMW), saved, "x.pth")
    other = nn.ModuleDict({"head": nn.Linear(4, 2), "norm": nn.LayerNorm(2), "norm_head": nn.Linear(2, 2)})
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        load_optimizer_state(build_optimizer(other, ADAMW), saved, "x.pth")
