"""MiT: official numbers, names and initialisation; the product against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg.errors import DataError
from mmseg.models import build_backbone
from mmseg.models.layers.drop_path import DropPath
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


def test_drop_path_rates_rise_linearly():
    rates = [m.drop_prob for m in tiny().modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i / 7 for i in range(8)])


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
        model = tiny(with_cp=with_cp).train()
        for layer in model.modules():
            if isinstance(layer, DropPath):
                layer.drop_prob = 0.5
        torch.manual_seed(1)
        loss = projected(model(x))
        torch.rand(7)  # the generator goes on before the backward pass
        found.append(gradients(model, loss))
    assert_same_gradients(found[1], found[0], tolerance=1e-5)


def test_images_too_small_for_stage_1_are_reported():
    assert tiny()(torch.zeros(1, 3, 29, 29))[0].shape[-2:] == (8, 8)
    with pytest.raises(DataError, match="28x64"):
        tiny()(torch.zeros(1, 3, 28, 64))
