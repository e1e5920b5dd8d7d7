"""Parameter groups against the official ones, and what an optimiser's state may be restored from."""

import copy

import pytest
import torch
from torch import nn

from mmseg.engine.optim import build_optimizer, load_optimizer_state, tell_of_idle_keys
from mmseg.errors import CheckpointError, ConfigError
from mmseg.models import build_segmentor
from tests.golden_cases import Case

ADAMW = {"type": "AdamW", "lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.01}
NORM_FREE = {"paramwise_cfg": {"custom_keys": {"norm": {"decay_mult": 0.0}}}}


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter."""
    return {name: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for name in g["names"]}


@pytest.mark.parametrize(
    ("folder", "name", "train_case"),
    [
        ("cffm", "param_groups_b1", "cffm_b1_train"),
        ("mrcfa", "param_groups_b1", "mrcfa_b1_train"),
        ("hfan", "param_groups_160k", "hfan_b1_train"),
        ("hfan", "param_groups_refine", "hfan_b1_train"),
    ],
)
def test_official_parameter_groups(folder, name, train_case):
    case = Case(folder, name)
    model = build_segmentor(Case(folder, train_case).config)
    optimizer = build_optimizer(model, case.config)
    found = settings_of(optimizer)
    assert found.keys() == case["expected"].keys()
    for name, expected in case["expected"].items():
        assert found[name] == pytest.approx(tuple(expected), rel=1e-9), name
    parameters = dict(model.named_parameters())
    assert len(optimizer.param_groups) == 3  # all others: backbone, its norms, head
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
        assert all(a is parameters[name] for a, name in zip(group["params"], group["names"], strict=True))


def layers() -> nn.Module:
    """Two equally shaped linear layers around a norm, so that merging groups changes the order of the parameters."""
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "norm_head": nn.Linear(2, 2)})


def order_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_longest_key_decides_alone():
    keys = {"norm": {"decay_mult": 0.0}, "head": {"lr_mult": 10.0}, "norm_head": {"lr_mult": 0.5, "decay_mult": 3.0}}
    found = settings_of(build_optimizer(layers(), {**ADAMW, "paramwise_cfg": {"custom_keys": keys}}))
    assert found["head.bias"] == pytest.approx((1.0, 0.01))
    assert found["norm.weight"] == pytest.approx((0.1, 0.0))
    assert found["norm_head.weight"] == pytest.approx((0.05, 0.03))


def test_rules_by_kind_of_layer():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 4, 1),
            "dw": nn.Conv2d(4, 4, 3, groups=4),
            "bn": nn.BatchNorm2d(4),
            "skip": nn.Linear(4, 4),
        }
    )
    rules = {
        "bias_lr_mult": 2.0,
        "bias_decay_mult": 3.0,
        "norm_decay_mult": 0.0,
        "dwconv_decay_mult": 5.0,
        "custom_keys": {"skip": {}},
    }
    found = settings_of(build_optimizer(model, {**ADAMW, "paramwise_cfg": rules}))
    expected = {
        "conv.weight": (0.1, 0.01),
        "conv.bias": (0.2, 0.03),
        "dw.weight": (0.1, 0.05),
        "dw.bias": (0.2, 0.05),
        "bn.weight": (0.1, 0.0),
        "bn.bias": (0.1, 0.0),
        "skip.weight": (0.1, 0.01),
        "skip.bias": (0.1, 0.01),
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


def test_every_parameter_is_in_and_one_without_gradient_stays():
    model = layers()
    model["norm"].requires_grad_(False)
    optimizer = build_optimizer(model, ADAMW)
    assert optimizer.param_groups[0]["names"] == order_of(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model["head"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam"])
def test_any_optimiser_of_torch(name):
    optimizer = build_optimizer(layers(), {"type": name, "lr": 0.1, "weight_decay": 0.5})
    assert type(optimizer) is getattr(torch.optim, name)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize("fused", [True, False])
def test_an_update_counts_as_a_change_of_the_weights(fused):
    """What streams make of weights is kept until their versions say that they are new."""
    model = layers()
    optimizer = build_optimizer(model, {**ADAMW, "fused": fused})
    versions = [weight._version for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert all(weight._version > before for weight, before in zip(model.parameters(), versions))


def test_fused_kernels_are_taken_unless_the_config_chooses():
    assert build_optimizer(layers(), ADAMW).param_groups[0]["fused"]
    assert not build_optimizer(layers(), {**ADAMW, "fused": False}).param_groups[0]["fused"]
    assert not build_optimizer(layers(), {**ADAMW, "foreach": True}).param_groups[0]["fused"]
    assert build_optimizer(layers(), {"type": "RMSprop", "lr": 0.1}).param_groups[0].get("fused") is None


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "AdamWW", "lr": 0.1}, "did you mean 'AdamW'"),
        ({"type": "AdamW", "wight_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"type": "AdamW", "paramwise_cfg": {"custom_key": {}}}, "did you mean 'custom_keys'"),
        ({"type": "AdamW", "paramwise_cfg": {"custom_keys": {"head": {"lr_mul": 1}}}}, "did you mean 'lr_mult'"),
        (
            {"type": "AdamW", "paramwise_cfg": {"custom_keys": {"head": {"lr_mult": "x"}}}},
            r"custom_keys\.head\.lr_mult",
        ),
        ({"type": "AdamW", "paramwise_cfg": {"norm_decay_mult": -1}}, r"norm_decay_mult = -1"),
        ({"type": "AdamW", "paramwise_cfg": {"dcn_offset_lr_mult": 0.1}}, "unknown key 'dcn_offset_lr_mult'"),
        ({"type": "AdamW", "lr": "abc"}, r"optimizer\.lr = 'abc'"),
        ({"type": "AdamW", "lr": -1.0}, r"optimizer\.lr = -1\.0"),
        ({"type": "AdamW", "betas": 1}, r"optimizer\.betas = 1"),
        ({"type": "AdamW", "betas": [2.0, 0.9]}, r"optimizer\.betas\.0 = 2\.0"),
        ({"type": "LBFGS", "lr": 0.1}, "LBFGS.*closure"),
        ({"type": "SparseAdam", "lr": 0.1}, "SparseAdam.*dense gradients"),
        ({"lr": 0.1}, r"optimizer\.type is missing"),
    ],
)
def test_mistakes_are_named(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(layers(), cfg)


# --- going on ---------------------------------------------------------------------------------------------------------


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    """Uses head and norm_head, not the norm."""
    x = torch.full((1, 2), 1.0 + step)
    return model["head"](x).square().sum() + model["norm_head"](x).abs().sum()


def stepped(model: nn.Module, steps: int, cfg: dict) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, cfg)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    return optimizer


def one_group_each(optimizer: torch.optim.Optimizer, model: nn.Module, names: bool) -> dict:
    """The state as it was saved with a group for every parameter in the model's order: ours with `name`, mmcv's not."""
    saved = copy.deepcopy(optimizer.state_dict())
    index = {name: i for i, name in enumerate(n for g in saved["param_groups"] for n in g.pop("names"))}
    group = saved["param_groups"][0]
    groups = [{**group, "params": [i], **({"name": n} if names else {})} for i, n in enumerate(order_of(model))]
    state = {i: saved["state"][index[n]] for i, n in enumerate(order_of(model)) if index[n] in saved["state"]}
    return {"state": state, "param_groups": groups}


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state}


def assert_same_moments(a: dict, b: dict) -> None:
    assert a.keys() == b.keys() == {"head.weight", "head.bias", "norm_head.weight", "norm_head.bias"}
    assert not torch.equal(a["head.weight"]["exp_avg"], a["norm_head.weight"]["exp_avg"])  # a mix-up would show
    for name, state in a.items():
        assert state.keys() == b[name].keys()
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(b[name][k])) for k, v in state.items()), name


@pytest.mark.parametrize("saved_as", ["ours", "one group each with a name", "one group each", "one group, no names"])
def test_every_kind_of_file_goes_on(saved_as):
    """Merging by settings moves norm_head before norm: restoring by position would mix equally shaped layers."""
    cfg = {**ADAMW, "paramwise_cfg": {"custom_keys": {"norm.": {"decay_mult": 0.0}}}}
    model = layers()
    optimizer = stepped(model, 2, cfg)
    assert [n for g in optimizer.param_groups for n in g["names"]] != order_of(model)
    saved = optimizer.state_dict()
    if saved_as.startswith("one group each"):
        saved = one_group_each(optimizer, model, names=saved_as.endswith("name"))
    if saved_as == "one group, no names":
        saved = one_group_each(optimizer, model, names=False)
        saved["param_groups"] = [{**saved["param_groups"][0], "params": list(range(len(order_of(model))))}]
    if not saved_as.startswith("ours"):  # mmcv saves steps as plain numbers
        for state in saved["state"].values():
            state["step"] = int(state["step"])
    second = layers()
    restored = build_optimizer(second, cfg)
    load_optimizer_state(restored, saved, order_of(second), "iter_2.pth")
    assert_same_moments(moments(model, optimizer), moments(second, restored))
    loss_of(second, 2).backward()
    restored.step()
    assert float(restored.state[second["head"].weight]["step"]) == 3


@pytest.mark.parametrize("each", [False, True], ids=["merged groups", "one group each"])
def test_equally_shaped_layers_in_another_order_are_found_by_name(each):
    model = layers()
    optimizer = stepped(model, 2, {**ADAMW, **NORM_FREE})
    saved = one_group_each(optimizer, model, names=True) if each else optimizer.state_dict()
    turned = nn.ModuleDict({name: layers()[name] for name in ("norm_head", "norm", "head")})
    restored = build_optimizer(turned, {**ADAMW, **NORM_FREE})
    load_optimizer_state(restored, saved, order_of(turned), "iter_2.pth")
    assert_same_moments(moments(model, optimizer), moments(turned, restored))


def test_settings_come_from_the_config():
    saved = stepped(layers(), 2, ADAMW).state_dict()
    model = layers()
    optimizer = build_optimizer(model, {**ADAMW, "lr": 0.3, "weight_decay": 0.0, "fused": False})
    load_optimizer_state(optimizer, saved, order_of(model), "iter_2.pth")
    assert set(settings_of(optimizer).values()) == {(0.3, 0.0)} and not optimizer.param_groups[0]["fused"]
    assert model["norm"].weight not in optimizer.state


def test_moments_take_the_memory_order_of_their_parameter():
    """Fused kernels on the CPU pair numbers by their place in memory and would not notice."""

    def last(memory_format: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3)
        saved = stepped_conv(conv, build_optimizer(conv, ADAMW)).state_dict()
        conv = conv.to(memory_format=memory_format)
        optimizer = build_optimizer(conv, ADAMW)
        load_optimizer_state(optimizer, saved, order_of(conv), "iter_1.pth")
        stepped_conv(conv, optimizer)
        return conv.weight.detach()

    def stepped_conv(conv: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        optimizer.zero_grad()
        conv(torch.arange(75.0).view(1, 3, 5, 5).sin()).square().sum().backward()
        optimizer.step()
        return optimizer

    torch.testing.assert_close(last(torch.channels_last), last(torch.contiguous_format), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: "x", "is a str"),
        (lambda saved: {"state": saved["state"]}, "no param_groups or no state"),
        (lambda saved: {**saved, "state": "x"}, "no param_groups or no state"),
        (lambda saved: {**saved, "state": {0: torch.zeros(1)}}, "of parameter 0 is a Tensor"),
        (lambda saved: {**saved, "param_groups": [{"params": [0, 1, 2]}]}, "3 parameters with 6 names"),
        (lambda saved: {**saved, "state": {0: {"momentum_buffer": torch.zeros(2, 2)}}}, "momentum_buffer.*AdamW keeps"),
        (lambda saved: {**saved, "state": {0: {**saved["state"][0], "exp_avg": torch.zeros(3, 2)}}}, r"shape \[3, 2\]"),
    ],
)
def test_state_that_does_not_fit_is_refused(change, message):
    saved = stepped(layers(), 1, ADAMW).state_dict()
    model = layers()
    optimizer = build_optimizer(model, ADAMW)
    with pytest.raises(CheckpointError, match=message):
        load_optimizer_state(optimizer, change(saved), order_of(model), "x.pth")
    assert not optimizer.state


def test_state_of_other_parameters_is_refused():
    saved = stepped(layers(), 1, ADAMW).state_dict()
    head = nn.ModuleDict({"head": nn.Linear(2, 2)})
    with pytest.raises(CheckpointError, match=r"x\.pth.*is for norm\.bias.*which the model does not have"):
        load_optimizer_state(build_optimizer(head, ADAMW), saved, order_of(head), "x.pth")
    more = layers()
    more["extra"] = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"lacks extra\.weight, extra\.bias"):
        load_optimizer_state(build_optimizer(more, ADAMW), saved, order_of(more), "x.pth")


def test_custom_keys_without_effect_are_told(caplog):
    rule = {"lr_mult": 0.1}
    keys = {"norm": rule, "haed": rule, "he": {"decay_mult": 0.0}, "head": {"lr_mult": 2.0}, "pos_block": rule, "x": {}}
    tell_of_idle_keys(layers(), {**ADAMW, "paramwise_cfg": {"custom_keys": keys}})
    told = [record.getMessage() for record in caplog.records]
    assert [text.split()[0].rpartition(".")[2] for text in told] == ["haed", "he"]
    assert "no parameter has 'haed' in its name; names begin with head.weight" in told[0]
    assert "a longer key decides" in told[1]
    caplog.clear()
    tell_of_idle_keys(nn.ModuleDict({"bn1": nn.BatchNorm2d(2)}), {**ADAMW, **NORM_FREE})  # as in HFAN's ResNet
    assert not caplog.text
