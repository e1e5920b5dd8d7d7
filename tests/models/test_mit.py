"""MiT: official numbers, names and initialisation; the product against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.models import build_backbone
from mmseg.models.backbones.mit import Block, DropPath, MixFFN, map_to_tokens, tokens_to_map
from mmseg.models.cpu import linear as cpu_linear
from mmseg.models.layers.linear import Linear
from tests.golden_cases import Case, build_filled
from tests.reference import segformer as reference

INNER = ["patch_embed1", "block1.0.attn", "block1.0.mlp", "block1.0"]


def tiny(name: str = "mit_b0", **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(dict(type=name, **kwargs))


@pytest.mark.parametrize("name", ["mit_b0", "mit_b1", "mit_b1_odd"])
@pytest.mark.parametrize("grad", [False, True])
def test_official_numbers(name, grad):
    case = Case("cffm", name)
    model = build_filled(build_backbone, case.config)
    inner = {}
    for part in INNER:
        model.get_submodule(part).register_forward_hook(lambda _m, _i, out, part=part: inner.__setitem__(part, out))
    with torch.set_grad_enabled(grad):
        maps = model(case.inputs()["img"])
    for stage, x in enumerate(maps, 1):
        case.check(f"stage{stage}", x)
    case.check("patch_embed1", inner["patch_embed1"][0])
    for part in INNER[1:]:
        case.check(part, inner[part])


@pytest.mark.parametrize("name", ["mit_b0", "mit_b1", "mit_b1_odd"])
@torch.no_grad()
def test_reference_has_the_official_numbers(name):
    case = Case("cffm", name)
    model, img = build_filled(build_backbone, case.config), case.inputs()["img"]
    for stage, x in enumerate(reference.mit(model, img), 1):
        case.check(f"stage{stage}", x)
    block = model.block1[0]
    x, h, w = reference.patch_embedding(model.patch_embed1, img, 7, 4)
    case.check("patch_embed1", x)
    attended = reference.attention(block.attn, reference.layer_norm(x, block.norm1, 1e-6), h, w, 1, 8)
    case.check("block1.0.attn", attended)
    after = reference.layer_norm(x + attended, block.norm2, 1e-6)
    case.check("block1.0.mlp", reference.mix_ffn(block.mlp, after, h, w))
    case.check("block1.0", reference.transformer_block(block, x, h, w, 1, 8))


@pytest.mark.parametrize("name", [f"mit_b{i}" for i in range(6)])
def test_state_dict_has_the_official_names_and_shapes(name):
    with torch.device("meta"):
        model = build_backbone(dict(type=name, style="pytorch"))
    expected = Case("cffm", "state_dicts")["expected"]["backbones"][name]
    assert [(k, list(v.shape)) for k, v in model.state_dict().items()] == list(expected.items())


def test_norms_have_the_official_eps():
    """A wrong eps moves outputs by less than the tolerance of the golden cases."""
    for name, module in tiny("mit_b1").named_modules():
        if isinstance(module, nn.LayerNorm):
            coarse = name.startswith("patch_embed") or name.endswith("attn.norm")
            assert module.eps == (1e-5 if coarse else 1e-6), name


@pytest.mark.parametrize("settings", [{}, dict(drop_path_rate=0.35), dict(drop_path_rate=0)])
def test_drop_path_rates_rise_linearly(settings):
    rates = [m.drop_prob for m in tiny(**settings).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([settings.get("drop_path_rate", 0.1) * i / 7 for i in range(8)])


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 3, 2))
    assert set(out.unique().tolist()) <= {0.0, torch.tensor(1 / 0.75).item()}
    assert (out == out[:, :1, :1]).all() and out.mean() == pytest.approx(1, abs=0.05)
    assert layer.eval()(out) is out


def test_initialisation_is_the_official_one():
    model = tiny("mit_b1")
    expected = Case("cffm", "init_b1")["expected"]
    for name, value in model.state_dict().items():
        spec = expected[f"backbone.{name}"]
        if "constant" in spec:
            assert (value == spec["constant"]).all(), name
        else:
            assert value.std().item() == pytest.approx(spec["std"], rel=4 / (2 * value.numel()) ** 0.5 + 0.02), name
            assert value.abs().max() > 2.5 * value.std(), f"{name} is not normal"


def projected(maps: list[torch.Tensor]) -> torch.Tensor:
    """A loss whose gradients are of size 1: sums and squares of normalised maps would be constant."""
    generator = torch.Generator().manual_seed(9)
    return sum((m * torch.randn(m.shape, generator=generator)).sum() for m in maps)


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Within `tolerance` of the largest entry of each gradient."""
    for name, want in expected.items():
        assert (found[name] - want).abs().max() <= tolerance * want.abs().max(), name


def test_gradients_equal_those_of_the_reference():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 61, 83)
    model = tiny().eval()
    found, expected = (gradients(model, projected(maps)) for maps in (model(x), reference.mit(model, x)))
    assert all(gradient.abs().max() > 1e-2 for gradient in expected.values())  # the loss depends on every parameter
    assert_same_gradients(found, expected, tolerance=1e-3)


@pytest.mark.parametrize("part", INNER)
def test_what_a_hook_sees_can_be_learned_from(part):
    """As a loss on maps inside of the backbone does."""
    model, seen = tiny(drop_path_rate=0.0), []
    model.get_submodule(part).register_forward_hook(lambda _m, _i, out: seen.append(out))
    model(torch.randn(1, 3, 64, 64))  # with a single key queries would have no gradient
    [out] = seen
    (out[0] if isinstance(out, tuple) else out).square().sum().backward()
    gradients = [weight.grad for weight in model.get_submodule(part).parameters()]
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_hooks_of_weights_see_the_whole_gradient_once():
    seen, model = [], tiny(drop_path_rate=0.0)
    weight = model.block1[0].mlp.fc1.weight
    projected(model(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).backward()
    expected, weight.grad = weight.grad, None
    weight.register_hook(lambda gradient: seen.append(gradient) or gradient / 2)
    projected(model(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).backward()
    assert len(seen) == 1
    torch.testing.assert_close(weight.grad, expected / 2, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_weights_that_are_lent_for_one_call_get_their_gradients():
    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    lent = {name: (1.5 * weight.detach()).requires_grad_() for name, weight in block.named_parameters()}
    found = torch.autograd.grad(torch.func.functional_call(block, lent, (x, 4, 4)).sin().sum(), list(lent.values()))
    block.load_state_dict(lent)
    expected = torch.autograd.grad(block(x, 4, 4).sin().sum(), list(block.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["attn.proj", "mlp.fc2"])
def test_layers_of_a_user_in_a_block_are_called_as_the_formula_says(place):
    """Dropout draws once, and what is no linear layer sees all tokens, with a graph and without one."""

    class Own(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.seen = layer, []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(tuple(x.shape))
            return self.layer(x).relu()

    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    own = Own(Linear(32 if place == "mlp.fc2" else 8, 8))
    setattr(block.get_submodule(place.split(".")[0]), place.split(".")[1], own)
    out = block(x, 4, 4)
    out.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(block(x, 4, 4), out)
    assert own.seen == [(2, 16, own.layer.in_features)] * 2


@pytest.mark.parametrize("grad", [False, True])
def test_convolutions_of_a_user_in_a_block_are_computed_as_they_are(grad):
    """Other kernels and strides, as in a variant with overlapping reductions."""
    block, x = Block(8, 1, 2, 0.0), torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))
    block.attn.sr = nn.Conv2d(8, 8, 3, stride=2, padding=1)
    block.mlp.dwconv.dwconv = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32)
    with torch.set_grad_enabled(grad):
        keys = block.attn.norm(map_to_tokens(block.attn.sr(tokens_to_map(x, 8, 8))))
        key, value = block.attn.kv(keys).chunk(2, dim=-1)
        mixed = (block.attn.q(x) @ key.transpose(1, 2) * 8**-0.5).softmax(-1) @ value
        torch.testing.assert_close(block.attn(x, 8, 8), block.attn.proj(mixed), rtol=1e-5, atol=1e-5)
        hidden = map_to_tokens(block.mlp.dwconv.dwconv(tokens_to_map(block.mlp.fc1(x), 8, 8)))
        expected = block.mlp.fc2(nn.functional.gelu(hidden))
        torch.testing.assert_close(block.mlp(x, 8, 8), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_hook_in_a_large_perceptron_sees_all_tokens():
    mlp, seen = Block(64, 1, 8, 0.0).mlp, []
    mlp.fc1.register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape)))
    mlp(torch.zeros(1, 65 * 400, 64), 65, 400)
    assert seen == [(1, 65 * 400, 256)]


@pytest.mark.parametrize("whole_layer", [False, True])
def test_tied_weights_in_a_block_get_all_their_gradients(whole_layer, monkeypatch):
    """The last layer of a branch is left out where gradients are computed, but not where it is another one, too."""
    monkeypatch.setattr(cpu_linear, "_LEAST", 0)
    torch.manual_seed(0)
    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 30, 8, requires_grad=True)
    if whole_layer:
        block.attn.q = block.attn.proj
    block.attn.q.weight = block.attn.proj.weight
    learned = [x, *block.parameters()]
    found = torch.autograd.grad(block(x, 6, 5).sin().sum(), learned)
    block.register_forward_hook(lambda *_: None)  # by which it is computed as the formula says
    expected = torch.autograd.grad(block(x, 6, 5).sin().sum(), learned)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_of_a_user_draws_once():
    """The gradients are those of what has been drawn in the forward pass, on all devices."""
    mlp = Block(8, 1, 2, 0.0).mlp
    mlp.fc2 = nn.Sequential(mlp.fc2, nn.Dropout(0.5))
    out = mlp(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)), 4, 4)
    out.sum().backward()
    torch.testing.assert_close(mlp.fc2[0].bias.grad, 2.0 * (out != 0).sum((0, 1)))


def test_a_look_at_a_block_costs_no_hidden_maps():
    """With a hook it is computed by the plain formula, and what is cheap is made again nevertheless."""
    block, kept = Block(8, 1, 2, 0.0), []
    block.register_forward_hook(lambda _module, _inputs, out: None)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(tuple(x.shape)) or x, lambda x: x):
        block(torch.randn(2, 25, 8), 5, 5)
    assert (2, 25, 8) in kept and not {(2, 25, 32), (2, 32, 5, 5), (50, 32)} & set(kept)


def test_activation_checkpointing_with_drop_path_changes_no_gradient():
    """What drop path has drawn in the forward pass is drawn again when a block is computed again."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 64, 64)
    found = []
    for with_cp in (False, True):
        model = tiny(with_cp=with_cp, drop_path_rate=0.6).train()
        torch.manual_seed(1)
        loss = projected(model(x))
        torch.rand(7)  # the generator goes on before the backward pass
        found.append(gradients(model, loss))
    assert_same_gradients(found[1], found[0], tolerance=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_a_map_of_tokens_has_the_strides_of_channels_last_maps(n):
    """By any other stride of a batch axis of length 1 oneDNN's convolutions take longer."""
    tokens = torch.arange(n * 30.0).view(n, 6, 5)
    maps = tokens_to_map(tokens, 2, 3)
    assert maps.shape == (n, 5, 2, 3) and maps.stride() == (30, 1, 15, 5)
    assert torch.equal(maps.flatten(2).transpose(1, 2), tokens)


def test_images_too_small_for_stage_1_are_reported():
    assert tiny()(torch.zeros(1, 3, 29, 29))[0].shape[-2:] == (8, 8)
    with pytest.raises(DataError, match="28x64"):
        tiny()(torch.zeros(1, 3, 28, 64))


# ---------------------------------------------------------------------- keys of a config


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 3, 4])
def test_frozen_stages_are_not_trained(frozen_stages):
    """Their parts get no gradient and no drop path; what comes after them learns as before."""
    model = tiny(frozen_stages=frozen_stages, drop_path_rate=0.9).train()
    frozen = {f"{part}{s}" for s in range(1, frozen_stages + 1) for part in ("patch_embed", "block", "norm")}
    frozen |= {"patch_embed1"} if frozen_stages == 0 else set()
    assert {name for name, part in model.named_children() if not part.training} == frozen
    x = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    maps = model(x)
    assert [m.requires_grad for m in maps] == [s > frozen_stages for s in (1, 2, 3, 4)]
    if frozen_stages < 4:
        projected(maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in frozen), name
        assert (parameter.grad is None) == (name.split(".")[0] in frozen), name
    exact = model.eval()(x)
    for found, expected in zip(maps[: max(frozen_stages, 0)], exact):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(tiny().state_dict())


def test_gradients_behind_frozen_stages_are_those_of_the_whole():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 61, 83)
    whole, frozen = tiny().eval(), tiny(frozen_stages=2).eval()
    expected = gradients(whole, projected(whole(x)))
    projected(frozen(x)).backward()
    found = {name: p.grad for name, p in frozen.named_parameters() if p.requires_grad}
    assert found
    assert_same_gradients(found, {name: expected[name] for name in found}, tolerance=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(frozen_stages=5), "frozen_stages = 5"),
        (dict(frozen_stages=True), "frozen_stages = True"),
        (dict(drop_path_rate=1.0), "drop_path_rate = 1.0"),
        (dict(drop_path_rate="0.1"), "drop_path_rate = '0.1'"),
        (dict(depths=[3, 4, 6, 3]), "unknown key 'depths'"),
        (dict(embed_dims=[64] * 4), "unknown key 'embed_dims'"),
        (dict(init_cfg=dict(type="Kaiming")), "init_cfg"),
        (dict(init_cfg=5), "init_cfg"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_that_cannot_work(settings, told):
    with pytest.raises(ConfigError, match=told):
        build_backbone(dict(type="mit_b0", **settings))


def test_weights_of_init_cfg(tmp_path):
    source = tiny("mit_b0")
    torch.save(source.state_dict(), tmp_path / "own.pth")
    torch.manual_seed(7)
    found = build_backbone(dict(type="mit_b0", init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "own.pth"))))
    for name, value in source.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match=r"own\.pth"):
        build_backbone(dict(type="mit_b1", init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "own.pth"))))


def test_wide_maps_are_stored_once_in_graphs():
    """In a graph for other engines the perceptron reorders its narrow input and output alone."""
    h, w, dim, hidden = 6, 5, 8, 32
    torch.manual_seed(0)
    ffn, x = MixFFN(dim, hidden).eval(), torch.randn(2, h * w, dim)
    with torch.no_grad():
        program = torch.export.export(ffn, (x, h, w))
        torch.testing.assert_close(program.module()(x, h, w), ffn(x, h, w))
    names = [str(node.target) for node in program.graph.nodes if hidden in getattr(node.meta.get("val"), "shape", ())]
    names = [name for name in names if name.startswith("aten.")]
    assert len(names) >= 3 and not [name for name in names if "permute" in name or "transpose" in name], names


def test_graphs_hold_the_layers_that_are_there():
    """A layer of one's own in the perceptron is part of its graph."""
    torch.manual_seed(0)
    ffn, x = MixFFN(8, 32).eval(), torch.randn(2, 30, 8)
    ffn.fc2 = nn.Sequential(ffn.fc2, nn.Tanh())
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(ffn, (x, 6, 5)).module()(x, 6, 5), ffn(x, 6, 5))


@pytest.mark.parametrize("place", ["fc1", "dwconv", "fc2"])
def test_graphs_hold_what_hooks_do(place):
    """Hooks may change results, as those of PyTorch's weight norm do."""
    torch.manual_seed(0)
    ffn, x = MixFFN(8, 32).eval(), torch.randn(2, 30, 8)
    getattr(ffn, place).register_forward_hook(lambda _module, _inputs, out: 2 * out)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(ffn, (x, 6, 5)).module()(x, 6, 5), ffn(x, 6, 5))
