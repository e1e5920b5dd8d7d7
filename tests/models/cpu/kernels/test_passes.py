"""Convolution, GELU and layer norm by kernels, against the formulas in float64 and beside PyTorch's operators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg.models.backbones.mit import Block
from mmseg.models.cpu.kernels import passes
from mmseg.models.cpu.kernels.library import kernels_for, library
from mmseg.models.cpu.layout import depthwise_gelu
from mmseg.models.cpu.pieces import in_strips
from mmseg.models.cpu.tokens import gelu, layer_norm
from mmseg.models.layers.norms import LayerNorm
from mmseg.models.layers.resize import add_resized
from tests.models.cpu.test_cpu_layers import operations

pytestmark = pytest.mark.skipif(library() is None, reason="there is no C++ compiler here, or MMSEG_KERNELS=off")
SPECIAL = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -30.0, 30.0, -13.1, 1e30, -1e30])


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """With threads for the smallest work."""
    monkeypatch.setattr(passes, "_A_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def convolution(channels: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias)


def formula(x: torch.Tensor, conv: nn.Conv2d, w: int) -> torch.Tensor:
    """Of tokens (n, h * w, C), in float64."""
    maps, bias = x.double().unflatten(1, (-1, w)).permute(0, 3, 1, 2), conv.bias
    maps = F.conv2d(maps, conv.weight.double(), bias if bias is None else bias.double(), padding=1, groups=x.shape[-1])
    return F.gelu(maps).flatten(2).transpose(1, 2)


@torch.no_grad()
@pytest.mark.parametrize(
    "n, h, w, channels", [(1, 1, 1, 1), (2, 1, 5, 33), (1, 7, 1, 64), (3, 4, 6, 7), (1, 3, 9, 1050)]
)
def test_depthwise_convolution(n, h, w, channels, threads):
    torch.manual_seed(0)
    x, conv = 2 * torch.randn(n, h * w, channels), convolution(channels, bias=channels != 64)
    assert "mmseg.depthwise_gelu.default" in operations(lambda: depthwise_gelu([x], conv, w))
    torch.testing.assert_close(depthwise_gelu([x], conv, w).double(), formula(x, conv, w), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("n, h, rows", [(1, 1, 1), (1, 7, 1), (2, 7, 3), (1, 6, 2), (1, 5, 4)])
def test_strips_are_the_whole(n, h, rows, kernels, monkeypatch):
    """The last strip may need no new row, and parts are views of larger ones."""
    monkeypatch.setenv("MMSEG_KERNELS", kernels)
    torch.manual_seed(0)
    x, conv, w = torch.randn(n, h * 5, 20), convolution(20), 5
    found = torch.empty_like(x)

    def then(strip: slice, parts: list[torch.Tensor], ends: tuple[bool, bool]) -> None:
        found[:, strip] = depthwise_gelu(parts, conv, w, ends)

    in_strips(h, w, rows, lambda strip: x[:, strip] + 1, then)
    torch.testing.assert_close(found.double(), formula(x + 1, conv, w), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_numbers_that_are_none_stay_where_they_are():
    """Only the pixels around them see them, in their channel."""
    x, conv = torch.ones(1, 25, 18), convolution(18)
    conv.weight.fill_(0.1)
    for value in (float("nan"), float("inf")):
        x[0, 12, 3] = value
        odd = ~depthwise_gelu([x], conv, 5).isfinite()
        rows = torch.tensor([6, 7, 8, 11, 12, 13, 16, 17, 18])
        assert odd.sum() == 9 and odd[0, rows, 3].all()


@torch.no_grad()
def test_gelu(threads):
    x = torch.cat([torch.linspace(-16, 16, 40001), 100 * torch.randn(50)])
    expected = F.gelu(x.double())
    error = (gelu(x) - expected).abs() / x.abs().clamp(min=1)
    assert error.max() < 1.5e-7
    assert "mmseg.gelu.default" in operations(lambda: gelu(x))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 10, 33])
def test_gelu_of_special_numbers(count):
    x = SPECIAL.repeat(4)[:count]
    torch.testing.assert_close(gelu(x), F.gelu(x.double()).float(), rtol=0, atol=1e-30, equal_nan=True)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (7, 16), (2, 3, 33), (5, 64), (4, 320), (3, 1030)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(shape, affine, threads):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + 100
    weight, bias = (torch.randn(shape[-1]) if affine else None for _ in range(2))
    expected = F.layer_norm(x.double(), shape[-1:], *(p if p is None else p.double() for p in (weight, bias)), 1e-5)
    torch.testing.assert_close(layer_norm(x, shape[-1:], weight, bias, 1e-5).double(), expected, rtol=1e-4, atol=5e-5)
    only = layer_norm(x, shape[-1:], weight, None, 1e-5)
    torch.testing.assert_close(only, F.layer_norm(x, shape[-1:], weight, None, 1e-5), rtol=1e-4, atol=5e-5)


@torch.no_grad()
def test_layer_norm_of_rows_that_are_no_numbers():
    x = torch.randn(9, 20)
    x[2, 5], x[7, 19] = float("nan"), float("inf")
    found, expected = layer_norm(x, (20,)), F.layer_norm(x, (20,))
    assert found[[2, 7]].isnan().all()
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_the_layer_takes_its_kernel_where_it_is_the_same():
    """Not with a graph, for other types, or if the axes are several."""
    x, kernel = torch.randn(2, 4, 8), "mmseg.layer_norm.default"
    norm = LayerNorm(8)
    with torch.no_grad():
        assert kernel in operations(lambda: norm(x))
        assert kernel in operations(lambda: norm(x.transpose(0, 1)))
        torch.testing.assert_close(norm(x.transpose(0, 1)), nn.LayerNorm(8)(x).transpose(0, 1))
        for other, y in (
            (norm.double(), x.double()),
            (LayerNorm((4, 8)), x),
            (LayerNorm((4, 8), elementwise_affine=False), x),
        ):
            assert kernel not in operations(lambda other=other, y=y: other(y))
            torch.testing.assert_close(other(y), F.layer_norm(y, other.normalized_shape))
    norm = LayerNorm(8)
    assert kernel not in operations(lambda: norm(x))
    norm(x).sin().sum().backward()
    assert norm.weight.grad is not None


@torch.no_grad()
def test_wrong_sizes_are_pytorchs_errors():
    x = torch.randn(2, 4, 8)
    with pytest.raises(RuntimeError):
        layer_norm(x, (8,), torch.randn(7))
    with pytest.raises(RuntimeError):
        layer_norm(x, (8,), torch.randn(8, device="meta"))
    with pytest.raises(RuntimeError):
        depthwise_gelu([x], convolution(9), 2)


@torch.no_grad()
def test_without_kernels_pytorch_does_the_same(monkeypatch):
    torch.manual_seed(0)
    x, conv = torch.randn(2, 12, 24), convolution(24)

    def all_of_them() -> list[torch.Tensor]:
        return [depthwise_gelu([x], conv, 3), gelu(x), layer_norm(x, (24,))]

    found = all_of_them()
    monkeypatch.setenv("MMSEG_KERNELS", "off")
    assert kernels_for(x) is None and not any("mmseg" in name for name in operations(all_of_them))
    for ours, theirs in zip(found, all_of_them(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


def test_a_forward_pass_that_learns_goes_without_kernels():
    """Although what lies inside of a branch is computed without a graph at first."""
    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 20, 8)
    assert not any("mmseg" in name for name in operations(lambda: block(x, 5, 4).sum().backward()))
    with torch.no_grad():
        assert any("mmseg" in name for name in operations(lambda: block(x, 5, 4)))


@torch.no_grad()
def test_fake_tensors_have_the_shapes_of_real_ones():
    parts, conv = [torch.randn(2, 6, 4), torch.randn(2, 9, 4)], convolution(4)
    for ends in ((True, True), (False, True), (True, False), (False, False)):
        found = [
            passes.depthwise_gelu([p.to(d) for p in parts], conv.weight.to(d), None, 3, ends) for d in ("cpu", "meta")
        ]
        assert found[0].shape == found[1].shape == (2, 15 - 3 * ends.count(False), 4)
    x = torch.randn(3, 4).t()
    for kernel in (passes.gelu, lambda x: passes.layer_norm(x, None, None, 1e-5)):
        assert kernel(x).stride() == kernel(x.to("meta")).stride()


@torch.no_grad()
@pytest.mark.parametrize(
    "n, channels, sizes",
    [(1, 1, [(1, 1), (1, 1)]), (2, 33, [(8, 12), (4, 6), (2, 3), (1, 2)]), (1, 64, [(7, 5), (9, 2), (7, 5)])],
)
def test_sums_of_resized_maps(n, channels, sizes, threads):
    torch.manual_seed(0)
    x, *maps = (torch.randn(n, *size, channels).permute(0, 3, 1, 2) for size in sizes)
    expected = x.double() + sum(F.interpolate(part.double(), sizes[0], mode="bilinear") for part in maps)
    copies = [part.clone() for part in maps]
    assert "mmseg.add_resized.default" in operations(lambda: add_resized(x.clone(), maps))
    found = add_resized(x, maps)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6)
    assert found is x and all(torch.equal(part, copy) for part, copy in zip(maps, copies))


@torch.no_grad()
def test_infinities_in_maps_of_the_same_size_stay_where_they_are():
    x, part = torch.zeros(2, 3, 4, 5, 8).permute(0, 1, 4, 2, 3)
    part[0, 1, 2, 3] = torch.inf
    assert torch.equal(add_resized(x.clone(memory_format=torch.channels_last), [part, part]), part)


@pytest.mark.parametrize("kind", ["graph", "off", "float64", "other strides"])
def test_sums_of_resized_maps_by_pytorch(kind, monkeypatch):
    torch.manual_seed(0)
    x, *maps = (torch.randn(2, *size, 5).permute(0, 3, 1, 2) for size in ((8, 6), (4, 3), (2, 2)))
    if kind == "off":
        monkeypatch.setenv("MMSEG_KERNELS", "off")
    if kind == "float64":
        x, *maps = (part.double() for part in (x, *maps))
    x = x.contiguous() if kind == "other strides" else x
    expected = x + sum(F.interpolate(part, (8, 6), mode="bilinear") for part in maps)
    with torch.set_grad_enabled(kind == "graph"):
        assert not any("mmseg" in name for name in operations(lambda: add_resized(x, [part.clone() for part in maps])))
        torch.testing.assert_close(add_resized(x, maps), expected)
