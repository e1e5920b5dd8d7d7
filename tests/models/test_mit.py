"""MiT: official numbers, names and initialisation; the product against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.models import build_backbone
from mmseg.models.backbones.mit import DropPath, MixFFN, tokens_to_map
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
