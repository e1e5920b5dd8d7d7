"""Short cuts for CPUs: equal to the plain operations, and taken on CPUs only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg.models import build_backbone
from mmseg.models.backbones.mit import MixFFN
from mmseg.models.cpu import attention, pieces
from mmseg.models.cpu.attention import attend, filling
from mmseg.models.cpu.bfloat16 import has_bfloat16, scale_and_shift
from mmseg.models.cpu.layout import depthwise_conv3x3, is_depthwise3x3, visible_layout
from mmseg.models.cpu.linear import linear, uses_onednn
from mmseg.models.cpu.pieces import add_residual, maps_at_once, pictures_one_by_one, rows_of_strips, tokens_in_slices
from mmseg.models.layers.linear import Mlp, pointwise_conv


def operations(call) -> list[str]:
    """Names of the operations of a call, views left out."""
    names = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if not func.is_view:
                names.append(str(func))
            return func(*args, **(kwargs or {}))

    with Record():
        call()
    return names


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_linear_equals_that_of_pytorch(grad, dtype):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, dtype=dtype) for shape in ((3, 5, 7), (7, 4), (4,)))
    with torch.set_grad_enabled(grad):
        assert uses_onednn(x) in (False, dtype != torch.float64 and not grad)
        for b in (bias, None):
            torch.testing.assert_close(linear(x, weight.t(), b), F.linear(x, weight.t(), b))


@torch.no_grad()
def test_onednn_is_used_where_it_can_be():
    x = torch.randn(4, 4)
    assert "mkldnn._linear_pointwise" in " ".join(operations(lambda: linear(x, x)))
    narrow = " ".join(operations(lambda: linear(x.bfloat16(), x.bfloat16())))
    assert ("mkldnn._linear_pointwise" in narrow) == has_bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, x).dtype == torch.bfloat16
    assert linear(x.to("meta"), x.to("meta")).device.type == "meta"


@torch.no_grad()
def test_pointwise_conv_is_a_1x1_convolution():
    x, weight, bias = torch.randn(2, 6, 5, 7), torch.randn(9, 6), torch.randn(9)
    torch.testing.assert_close(pointwise_conv(x, weight, bias), F.conv2d(x, weight[:, :, None, None], bias))


@pytest.mark.parametrize("shape", [(2, 3, 37, 11, 8), (1, 1, 5, 1, 4)])
def test_attention_in_slices_equals_the_formula(shape, monkeypatch):
    """With slices far smaller than the queries."""
    n, heads, length, keys, dim = shape
    monkeypatch.setattr(attention, "_LOGITS", 16 * keys)
    torch.manual_seed(0)
    q, k, v = (torch.randn(n, size, heads, dim).transpose(1, 2) for size in (length, keys, keys))
    expected = (q @ k.transpose(-2, -1) * dim**-0.5).softmax(dim=-1) @ v
    torch.testing.assert_close(attend(q, k, v), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v), expected, rtol=1e-5, atol=1e-6)
        in_slices = attention._attend_in_slices(q, k, v)  # which not every processor takes
        torch.testing.assert_close(in_slices, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("keys", [32, 35, 40, 63])
def test_attention_in_slices_of_bfloat16_leaves_filling_out(keys):
    """Rows are filled up to whole vectors where that is faster."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, size, 8) for size in (50, keys, keys))
    expected = F.scaled_dot_product_attention(q, k, v)
    found = attention._attend_in_slices(*(x.bfloat16() for x in (q, k, v)))
    assert filling(keys, torch.bfloat16) == {32: 0, 35: 0, 40: 24, 63: 1}[keys] and filling(keys, torch.float32) == 0
    assert (found - expected).abs().mean() < 0.01 * expected.std()


@pytest.mark.parametrize("grad", [False, True])
def test_depthwise_convolution_keeps_the_memory_order_of_its_input(grad):
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    maps = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(grad):
        out, activated = depthwise_conv3x3(maps, conv), depthwise_conv3x3(maps, conv, gelu=True)
        torch.testing.assert_close(out, conv(maps))
        torch.testing.assert_close(activated, F.gelu(conv(maps)), rtol=1e-5, atol=2e-6)
    for x in (out, activated):
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_convolutions_of_another_kind_are_told_apart():
    plain = dict(kernel_size=3, padding=1, groups=4)
    assert is_depthwise3x3(nn.Conv2d(4, 4, **plain))
    for own in (dict(kernel_size=5), dict(dilation=2), dict(stride=2), dict(padding=2), dict(groups=2)):
        assert not is_depthwise3x3(nn.Conv2d(4, 4, **{**plain, **own}))
    assert not is_depthwise3x3(nn.Conv2d(4, 4, **plain, padding_mode="reflect"))
    assert not is_depthwise3x3(nn.Conv2d(4, 8, **plain))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scale_and_shift(dtype):
    x, scale, shift = (torch.randn(size, dtype=dtype) for size in ((2, 1, 5), (3, 5), (5,)))
    found, expected = scale_and_shift(x, scale, shift), x.double() * scale.double() + shift.double()
    assert found.dtype == dtype and (found - expected).abs().max() <= 10 * torch.finfo(dtype).eps


def test_layout_of_one_map_is_made_visible():
    """A map of a larger batch has the batch stride of that; only its order in memory counts."""
    maps = torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    one = maps.unflatten(2, (1, 5))[:1, :, 0].as_strided((1, 4, 5, 6), (7, 1, 24, 4))
    visible = visible_layout(one)
    assert torch.equal(visible, one) and visible.stride() == (120, 1, 24, 4)
    for other in (maps, torch.randn(1, 4, 5, 6)):
        assert visible_layout(other) is other


@pytest.mark.parametrize("tokens", [3, 512, 1300])
def test_residuals_in_pieces(tokens):
    mlp = Mlp(8, 16)
    x, normed = torch.randn(2, tokens, 8), torch.randn(2, tokens, 8)
    with torch.no_grad():
        expected = x + mlp(normed)
        torch.testing.assert_close(add_residual(x.clone(), normed, mlp), expected)
    before = x.clone()
    torch.testing.assert_close(add_residual(x, normed, mlp), expected)
    assert torch.equal(x, before)  # with a graph nothing is overwritten


@torch.no_grad()
def test_other_devices_work_on_everything_at_once():
    """The meta device stands for a GPU: every piece would be a launch."""
    x = torch.empty(2, 5000, 8, device="meta")
    mlp = Mlp(8, 16).to("meta")
    assert len(operations(lambda: add_residual(x, x, mlp))) == len(operations(lambda: x + mlp(x)))
    assert maps_at_once(x, 5000) == 5000 and maps_at_once(torch.empty(2), 5000) == pieces._MAPS
    q = torch.empty(1, 2, 6000, 8, device="meta")
    assert len(operations(lambda: attend(q, q, q))) < 12


@pytest.mark.parametrize(("n", "h", "w"), [(1, 65, 127), (2, 65, 128), (1, 22, 400)])
def test_strips_of_a_perceptron_with_a_convolution_equal_the_whole(n, h, w, monkeypatch):
    """At every border between strips, also where the last strip is a single row."""
    monkeypatch.setattr(pieces, "_ROWS", 1 << 18)  # those of a small cache
    mlp = MixFFN(64, 256).eval()
    x = torch.randn(n, h * w, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert 1 <= rows_of_strips(x, h, 256) < h
        torch.testing.assert_close(mlp(x, h, w), mlp._activate(mlp.fc1(x), h, w), rtol=1e-6, atol=1e-6)
        assert rows_of_strips(x[:, : 2 * w], 2, 256) == 0
    assert rows_of_strips(x, h, 256) == 0  # for gradients


def test_pictures_one_by_one_and_tokens_in_slices_equal_the_whole():
    network = build_backbone(dict(type="mit_b0")).eval()
    x = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 2500, 8, generator=torch.Generator().manual_seed(0))
    own = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for part, whole in zip(pictures_one_by_one(network, x), network(x), strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)
            assert part.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(tokens_in_slices(torch.mul, tokens, own), tokens * own)
