"""Deformable attention: official numbers and gradients, both ways of sampling, and what lies outside of the maps."""

from __future__ import annotations

import pytest
import torch

from mmseg.models.layers.deformable_attention import MSDeformAttn, deformable_attention
from tests.golden_cases import Case, fill
from tests.reference import themask as reference

SIZES = ((2, 3), (4, 5), (7, 9))  # of three levels, 89 tokens
OPTIONS = dict(atol=1e-5, rtol=1e-5)


@pytest.fixture(params=[True, False], ids=["with a graph", "without"])
def graph(request):
    with torch.set_grad_enabled(request.param):
        yield request.param


def inputs(length: int = 11, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Values, locations (some of them outside) and weights for 2 heads of 3 channels, of 2 items."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(2, sum(h * w for h, w in SIZES), 2, 3, generator=generator, dtype=dtype)
    locations = 1.6 * torch.rand(2, length, 2, 3, 4, 2, generator=generator, dtype=dtype) - 0.3
    weights = torch.rand(2, length, 2, 3, 4, generator=generator, dtype=dtype)
    return value, locations, weights


def test_sampling_and_its_gradients_are_the_official_ones():
    case = Case("themask", "msdeform_op")
    given = case.inputs()
    value, locations = (given[name].requires_grad_() for name in ("value", "sampling_locations"))
    logits = given["attention_logits"]
    weights = logits.flatten(3).softmax(-1).view(logits.shape).requires_grad_()
    output = deformable_attention(value, case["spatial_shapes"], locations, weights)
    output.backward(given["grad_output"])
    for name, found in (
        ("output", output),
        ("grad_value", value.grad),
        ("grad_sampling_locations", locations.grad),
        ("grad_attention_weights", weights.grad),
    ):
        case.check(name, found)
    with torch.no_grad():
        case.check("output", deformable_attention(value, case["spatial_shapes"], locations, weights))


def test_the_module_is_the_official_one(graph):
    case = Case("themask", "msdeform_module")
    module = MSDeformAttn(**case.config)
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == case["state"]
    fill.fill(module)
    given, found = case.inputs(), {}
    module.sampling_offsets.register_forward_hook(lambda *args: found.update(sampling_offsets=args[2]))
    module.attention_weights.register_forward_hook(lambda *args: found.update(attention_logits=args[2]))
    sizes = torch.tensor(case["spatial_shapes"])  # as users of the released module have them
    found["output"] = module(given["query"], given["reference_points"], given["input_flatten"], sizes)
    for name, value in found.items():
        case.check(name, value)


def test_gradients_are_those_of_finite_differences():
    value, locations, weights = (x.requires_grad_() for x in inputs(3, torch.float64))
    assert torch.autograd.gradcheck(
        lambda *args: deformable_attention(args[0], SIZES, *args[1:]), (value, locations, weights), eps=1e-7, atol=1e-5
    )


def test_gradients_are_those_of_the_formula_in_float64():
    found = []
    for function in (deformable_attention, reference.sampled):
        args = [x.requires_grad_() for x in inputs(dtype=torch.float64)]
        out = function(args[0], SIZES, *args[1:])
        out.square().sum().backward()
        found.append([out, *(x.grad for x in args)])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("length", [1, 11, 2500])
def test_both_ways_of_sampling_are_the_formula(graph, length):
    value, locations, weights = inputs(length)
    far = locations.flatten()
    far[::7] *= 1e6  # far away, where nothing is
    far[1::13] *= -1e9
    expected = reference.sampled(value, SIZES, locations.clamp(-9, 9), weights)
    torch.testing.assert_close(deformable_attention(value, SIZES, locations, weights), expected, **OPTIONS)


def test_positions_that_are_no_numbers_do_not_end_the_process(graph):
    """Weights that have diverged give no label map, but no crash either."""
    value, locations, weights = inputs()
    locations[0, 3] = torch.nan
    found = deformable_attention(value, SIZES, locations, weights)
    others = torch.ones(2, 11, dtype=torch.bool)
    others[0, 3] = False
    torch.testing.assert_close(found[others], reference.sampled(value, SIZES, locations, weights)[others], **OPTIONS)


def test_half_precision_samples_in_float32(graph):
    value, locations, weights = (x.bfloat16() for x in inputs())
    wide = deformable_attention(value.float(), SIZES, locations.float(), weights.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = deformable_attention(value, SIZES, locations, weights)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wide, atol=0.02, rtol=0.01)
