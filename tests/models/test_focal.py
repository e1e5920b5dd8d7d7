"""The focal decoder: official numbers, the reference, and the index tables."""

from __future__ import annotations

import functools

import pytest
import torch

from mmseg.models.cpu import focal as cpu_focal
from mmseg.models.cpu.bfloat16 import has_bfloat16
from mmseg.models.cpu.focal import window_groups
from mmseg.models.cpu.kernels.attention import takes
from mmseg.models.decode_heads.cffm.focal import FocalDecoder, to_map, to_tokens
from mmseg.models.decode_heads.cffm.focal_attention import FocalBias, gather_rows
from mmseg.models.decode_heads.cffm.focal_geometry import focal_geometry, resize_matrix, ring_index
from tests.golden_cases import Case, build_filled
from tests.reference import cffm as reference


def build(config: dict) -> FocalDecoder:
    return FocalDecoder(config["dim"], config["depth"], config["num_heads"], config["mlp_ratio"])


DIM, CPU = 32, torch.device("cpu")


def random_decoder(depth: int = 2) -> FocalDecoder:
    torch.manual_seed(3)
    decoder = FocalDecoder(DIM, depth)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return decoder


@pytest.mark.parametrize("name", ["focal_exact", "focal_pad"])
def test_official_numbers(name):
    case = Case("cffm", name)
    decoder = build_filled(build, case.config)
    x = case.inputs()["x"]
    with torch.no_grad():
        case.check("out", decoder(x))
    case.check("out", decoder(x))  # with a graph
    case.check("out", reference.focal_decoder(decoder, x))
    tokens = x.permute(0, 1, 3, 4, 2)
    first = decoder.blocks[0]
    case.check(
        "block0.attn", reference.focal_attention(first.attn, *reference.padded_target_and_pooled_maps(first, tokens))
    )
    for number, block in enumerate(decoder.blocks):
        tokens = reference.focal_block(block, tokens)
        case.check(f"block{number}", tokens)


@pytest.mark.parametrize("name", ["focal_exact", "focal_pad"])
def test_state_dict(name):
    case = Case("cffm", name)
    state = build(case.config).state_dict()
    assert {k: list(v.shape) for k, v in state.items() if v.is_floating_point()} == case["state"]
    assert {k: list(v.shape) for k, v in state.items() if not v.is_floating_point()} == case["state_int"]
    table = state["blocks.0.attn.relative_position_index_clips_2"]
    assert table[0].tolist() == [20, 19, 18, 11, 10, 9, 2, 1, 0]  # query (0, 0): (2 - u) * 9 + 2 - v
    assert table[-1, -1] == 6 * 9 + 6


@pytest.mark.parametrize(("batch", "frames", "h", "w"), [(1, 4, 14, 21), (2, 4, 10, 16), (1, 3, 5, 30), (1, 5, 36, 50)])
def test_equals_the_reference(batch, frames, h, w):
    decoder = random_decoder()
    x = torch.randn(batch, frames, DIM, h, w)
    with torch.no_grad():
        before = x.clone()
        found = decoder(x)
        assert torch.equal(x, before)
        expected = reference.focal_decoder(decoder, x)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert torch.equal(found[:, :-1], x[:, :-1])


def test_gradients_equal_those_of_the_reference():
    decoder = random_decoder()
    grads = []
    for decode in (decoder, functools.partial(reference.focal_decoder, decoder)):
        torch.manual_seed(0)
        x = torch.randn(2, 4, DIM, 10, 16, requires_grad=True)
        weight = torch.randn(2, DIM, 10, 16)
        decoder.zero_grad()
        out = decode(x)
        (out[:, -1] * weight).sum().backward()
        grads.append({"x": x.grad, **{n: p.grad.clone() for n, p in decoder.named_parameters()}})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=2e-4, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_masks_do_what_the_groups_do():
    """On a GPU all windows are attended to at once, with masks; the gradients of both ways are equal."""
    torch.manual_seed(0)
    geometry = focal_geometry(10, 16, CPU)
    rows = 10 * 16 + 1 + 15 * 6
    grads = []
    for masked in (True, False):
        torch.manual_seed(0)
        query, table = torch.randn(2, 6, 49, 32, requires_grad=True), torch.randn(2, rows, 64, requires_grad=True)
        table_bias = torch.randn(4, 49, 289, requires_grad=True)
        bias = FocalBias(table_bias, scale=0.3)
        if masked:
            out = gather_rows(bias.attend_masked(query, table, geometry).flatten(1, 2), geometry.tokens)
        else:
            out = bias.attend(query, table, geometry)
        out.square().sum().backward()
        grads.append([out, query.grad, table.grad, table_bias.grad])
    for one, other in zip(*grads):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("h", "w"), [(7, 7), (20, 33)])
def test_products_of_bfloat16_leave_filling_out(h, w, monkeypatch):
    """Keys are filled up to whole vectors by one of their window, which must not count twice."""
    monkeypatch.setenv("MMSEG_KERNELS", "off")
    torch.manual_seed(0)
    size, windows = (h, w), len(focal_geometry(h, w, torch.device("cpu")).keys)
    query, table = torch.randn(2, windows, 49, 16), torch.randn(2, _rows(h, w), 32)
    bias = torch.randn(8, 49, 289)
    expected = cpu_focal.grouped_attention(query, table, bias, 0.7, size)
    groups, parts = window_groups(*size), cpu_focal.split_bias(bias.bfloat16(), size)
    found = cpu_focal._attend_by_products(query.bfloat16(), table.bfloat16(), parts, 0.7, groups)
    assert (found - expected).abs().mean() < 0.02 * expected.std()
    if has_bfloat16():
        assert {part.shape[-1] % 32 for part in parts} <= {0, 1, 2, 3, 4}
        rounded = cpu_focal.grouped_attention(query.bfloat16(), table.bfloat16(), bias.bfloat16(), 0.7, size)
        assert torch.equal(rounded, found)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_do_what_the_masks_do(dtype):
    torch.manual_seed(0)
    geometry = focal_geometry(20, 33, CPU)
    query, table = torch.randn(2, len(geometry.keys), 49, 48).to(dtype), torch.randn(2, _rows(20, 33), 96).to(dtype)
    bias = torch.randn(4, 49, 289).to(dtype)
    if not takes(query, 12):
        pytest.skip("there is no C++ compiler, or the processor has no instructions for bfloat16")
    exact = FocalBias(bias.double(), 0.3).attend_masked(query.double(), table.double(), geometry)
    found = cpu_focal.grouped_attention(query, table, bias, 0.3, (20, 33))
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


def _rows(h: int, w: int) -> int:
    return 1 + int(focal_geometry(h, w, torch.device("cpu")).keys.max())


def test_autocast_trains():
    decoder, x = random_decoder(), torch.randn(1, 4, 32, 10, 16)
    expected = decoder(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = decoder(x)
        with torch.no_grad():
            torch.testing.assert_close(decoder(x), expected, atol=0.2, rtol=0.1)
    torch.testing.assert_close(out, expected, atol=0.2, rtol=0.1)
    out[:, -1].float().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in decoder.parameters())


def test_reference_maps_are_all_that_a_reference_gives():
    decoder = random_decoder().eval()
    x = torch.randn(1, 4, 32, 10, 16)
    with torch.no_grad():
        expected = decoder(x)[:, -1]
        tokens = to_tokens(x)[0]
        maps = decoder.reference_maps(tokens[:3], 10, 16)  # each frame once, with the others of its batch
        assert maps.shape == (3, 2, 6, 14, 32)
        out = decoder.update(tokens[3:].clone(), [m[None] for m in maps], 10, 16, decoder.fold())
    torch.testing.assert_close(to_map(out, 10, 16), expected, atol=1e-6, rtol=1e-6)


def test_ring_holds_twelve_tokens_twice():
    geometry = focal_geometry(35, 35, CPU)
    centre = geometry.keys[12, 49:181]  # the window in the middle of 5 x 5
    assert len(ring_index()) == 132 and len(centre.unique()) == 120
    assert not set(centre.tolist()) & set(geometry.queries[12].tolist())


def test_groups_cover_every_window_once():
    geometry, groups = focal_geometry(60, 108, CPU), window_groups(60, 108)
    windows = torch.cat([group.windows for group in groups])
    assert sorted(windows.tolist()) == list(range(9 * 16))
    for group in groups:
        assert not geometry.outside[group.windows][:, group.columns].any()
        assert len(group.columns) == 289 - int(geometry.outside[group.windows[0]].sum())


@torch.no_grad()
def test_a_fold_makes_its_masks_once_per_map_size_and_type():
    """On a GPU they are 65 MB for a frame of 480x864."""
    bias = FocalBias(torch.randn(4, 49, 289), scale=0.3)

    def mask(h: int, w: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return bias._masked_bias(focal_geometry(h, w, CPU), dtype)

    first = mask(10, 16)
    assert mask(10, 16) is first and mask(14, 21) is not first and mask(10, 16, torch.bfloat16).dtype == torch.bfloat16
    assert first.shape == (6, 4, 49, 289) and all(stride % 8 == 0 for stride in first.stride()[:-1])
    for side in range(20, 40):
        mask(side, side)
    assert len(bias._ready) <= 8
    with torch.enable_grad():
        assert mask(39, 39) is not mask(39, 39)  # a graph goes through it once


def test_resize_matrix_is_bilinear_resizing():
    x = torch.randn(1, 1, 14, 21)
    expected = torch.nn.functional.interpolate(x, (12, 18), mode="bilinear", align_corners=False)[0, 0]
    matrix = resize_matrix().float()
    rows, columns = torch.block_diag(matrix, matrix), torch.block_diag(matrix, matrix, matrix)
    torch.testing.assert_close(rows @ x[0, 0] @ columns.t(), expected, atol=1e-5, rtol=1e-5)
