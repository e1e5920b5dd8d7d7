"""Convolutions of large maps: Winograd's sums and matrix products are the plain convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg.models.cpu import winograd
from mmseg.models.cpu.winograd import conv1x1, conv3x3


@pytest.mark.parametrize("size", [(32, 32), (37, 30), (5, 206)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_winograd_is_the_convolution(size, bias, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 128, *size, generator=generator)
    weight = torch.randn(136, 128, 3, 3, generator=generator) / 34
    shift = torch.randn(136, generator=generator) if bias else None
    expected = F.conv2d(x.double(), weight.double(), shift.double() if bias else None, padding=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = conv3x3(x.contiguous(memory_format=layout), weight, shift)
        assert got.shape == expected.shape
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)
    positive = F.conv2d(x.relu().double(), weight.double(), shift.double() if bias else None, padding=1).relu()
    for tiles in (16, 4000):  # several strips, and one
        monkeypatch.setattr(winograd, "_TILES", tiles)
        got = conv3x3(x, weight, shift, of_relu=True, relu=True)
        torch.testing.assert_close(got.double(), positive, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_of_no_maps_there_are_none():
    weight = torch.randn(136, 128, 3, 3)
    assert conv3x3(torch.zeros(0, 128, 40, 40), weight, None).shape == (0, 136, 40, 40)
    assert conv1x1(torch.zeros(0, 128, 40, 40), weight[..., :1, :1], relu=True).shape == (0, 136, 40, 40)


def test_only_large_maps_without_a_graph_take_it():
    x, weight = torch.randn(1, 128, 40, 40), torch.randn(128, 128, 3, 3, requires_grad=True)
    conv3x3(x, weight, None, of_relu=True, relu=True).sum().backward()
    assert weight.grad is not None
    # whose gradients are slow for channels-last maps, the layout of what comes in
    assert conv3x3(x.contiguous(memory_format=torch.channels_last), weight, None).is_contiguous()
    with torch.no_grad():
        for some in (x[..., :20, :20], x[:, :8], x.double()):
            kernel = weight[:, : some.shape[1]].to(some.dtype)
            assert torch.equal(conv3x3(some, kernel, None), F.conv2d(some, kernel, padding=1))


@torch.no_grad()
def test_conv1x1_is_the_convolution():
    x, weight, bias = torch.randn(2, 24, 9, 7), torch.randn(16, 24, 1, 1), torch.randn(16)
    torch.testing.assert_close(conv1x1(x, weight, bias), F.conv2d(x, weight, bias), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv1x1(x, weight), F.conv2d(x, weight), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv1x1(x, weight, relu=True), F.conv2d(x, weight).relu(), rtol=1e-5, atol=1e-5)
