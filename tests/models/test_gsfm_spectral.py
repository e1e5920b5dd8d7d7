"""GSFM's low- and high-frequency modules: official numbers, and the formula at other sizes."""

from __future__ import annotations

import pytest
import torch

from mmseg.models.networks.gsfm.spectral import SpectralModule, spectral_filter
from tests.golden_cases import build_filled
from tests.models.gsfm_cases import GSFMCase
from tests.reference import gsfm as reference

SPECTRAL = ["hfm_24x32", "hfm_96x96", "hfm_odd_23x31", "lfm_24x24", "lfm_30x54", "lfm_odd_7x9"]


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_spectral_modules_have_the_official_numbers(name):
    """These cases were noted by hooks, of which that of conv1 gave what it had noted, its input, in place of conv1's
    output. With conv1 the modules are held by the cases of key encoder and decoder."""
    case = GSFMCase(name)
    channels, high = case.config["num_channels"], case.config["network"] == "HFM"
    module = build_filled(lambda c: SpectralModule(channels, high), {})
    x, noted = case.inputs()["x"], {}
    case.check("gaussian", spectral_filter(*x.shape[-2:], True).float()[None, None])
    hooks = [
        module.conv1.register_forward_hook(lambda _, args, out: noted.setdefault("conv1_in", args[0])),
        module.conv2.register_forward_hook(lambda _, args, out: noted.setdefault("conv2_out", out)),
    ]
    case.check("out", module(x))
    for output, value in noted.items():
        case.check(output, value)
    for hook in hooks:
        hook.remove()
    module.conv1.weight.copy_(torch.eye(2 * channels)[:, :, None, None])
    module.conv1.bias.zero_()
    case.check("out", module(x))
    assert len(noted) == 2


@torch.no_grad()
@pytest.mark.parametrize("high", [False, True])
def test_who_watches_the_convolutions_changes_no_number(high):
    module = build_filled(lambda c: SpectralModule(6, high), {}).double()
    x, seen = torch.randn(1, 6, 12, 17, dtype=torch.float64), []
    plain = module(x)
    module.conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.testing.assert_close(module(x), plain, rtol=0, atol=1e-12)
    assert [tuple(z.shape) for z in seen] == [(1, 12, 12, 17)]


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_spectral_modules_are_the_formulas(name):
    case = GSFMCase(name)
    high = case.config["network"] == "HFM"
    module, x = build_filled(lambda c: SpectralModule(case.config["num_channels"], high), {}), case.inputs()["x"]
    torch.testing.assert_close(module(x), reference.spectral(module, x), rtol=1e-5, atol=1e-5)
    for size in ((7, 240), (8, 9)):  # wider than the window, one side odd
        other = torch.randn(1, case.config["num_channels"], *size)
        torch.testing.assert_close(module(other), reference.spectral(module, other), rtol=1e-5, atol=1e-5)
