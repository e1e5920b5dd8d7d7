"""GSFM's low- and high-frequency modules: official numbers, and the formula at other sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg.models.networks.gsfm.spectral import SpectralModule, spectral_filter
from tests.golden_cases import build_filled
from tests.models.gsfm_cases import GSFMCase
from tests.reference import gsfm as reference

SPECTRAL = ["hfm_24x32", "hfm_96x96", "hfm_odd_23x31", "lfm_24x24", "lfm_30x54", "lfm_odd_7x9"]


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_spectral_modules_have_the_official_numbers(name):
    """In these cases conv1 passed on what it was given (they note its input, and the note replaced its output): their
    conv2_out is conv2(relu(conv1_in)). With conv1 the modules are held by the cases of key encoder and decoder."""
    case = GSFMCase(name)
    channels, high = case.config["num_channels"], case.config["network"] == "HFM"
    module = build_filled(lambda c: SpectralModule(channels, high), {})
    module.conv1.weight.copy_(torch.eye(2 * channels)[:, :, None, None])
    module.conv1.bias.zero_()
    x = case.inputs()["x"]
    case.check("gaussian", spectral_filter(*x.shape[-2:], True).float()[None, None])
    case.check("out", module(x))
    spectrum = torch.fft.fft2(x) * spectral_filter(*x.shape[-2:], high)
    stack = torch.cat([spectrum.real, spectrum.imag], dim=1).float()
    case.check("conv1_in", stack)
    case.check("conv2_out", module.conv2(F.relu(stack)))


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
