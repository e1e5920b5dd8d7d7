"""Products by oneDNN, where PyTorch has it: of the weights as they are now, and in graphs with their gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg.models.cpu import linear as cpu_linear
from mmseg.models.cpu.linear import fast_products, linear, linear_of_samples
from mmseg.models.layers.linear import Linear

ROWS = 300


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(24, 40).eval()


@torch.no_grad()
def check(layer: Linear) -> None:
    x = torch.randn(2, ROWS, 24)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_changed_weights_count_at_once(layer):
    check(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    check(layer)
    layer.load_state_dict({"weight": torch.randn(40, 24), "bias": torch.zeros(40)})
    check(layer)
    layer.weight.data[5] = 0  # of which autograd knows nothing
    check(layer)
    layer.weight = nn.Parameter(torch.randn(40, 24))
    check(layer)
    layer(torch.randn(ROWS, 24)).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()  # which raises no version
    check(layer)


def test_a_copy_has_its_own(layer):
    check(layer)
    other = copy.deepcopy(layer)
    nn.init.ones_(other.weight)
    check(other)
    check(layer)


def test_other_default_devices_change_no_choice():
    """With a GPU for new tensors, products on the CPU are as fast as without."""
    ask = cpu_linear._has_onednn_linear
    expected = ask(torch.float32)
    ask.cache_clear()
    with torch.device("meta"):
        assert ask(torch.float32) == expected


# --- layers that learn ------------------------------------------------------------------------------------------------


@pytest.fixture
def all_sizes(monkeypatch) -> None:
    """Small layers go the way of large ones."""
    monkeypatch.setattr(cpu_linear, "_LEAST", 0)


def gradients(out: torch.Tensor, learned: list[torch.Tensor]) -> list[torch.Tensor]:
    factors = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return list(torch.autograd.grad((out * factors).sum(), learned))


@pytest.mark.usefixtures("all_sizes")
@pytest.mark.parametrize("way", ["exact", "fast", "unseen"])
@pytest.mark.parametrize("frozen", ["", "x", "weight", "bias", "no bias"])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8), (2, 0, 8)])
def test_gradients_of_linear_layers(way, frozen, shape):
    torch.manual_seed(0)
    tensors = {"x": torch.randn(shape), "weight": torch.randn(6, 8), "bias": torch.randn(6)}
    if frozen == "no bias":
        del tensors["bias"]
    learned = [tensor.requires_grad_() for name, tensor in tensors.items() if name != frozen]
    expected = F.linear(*tensors.values())
    if way == "exact":
        found = linear(*tensors.values())
        assert torch.equal(found, expected)
    else:
        with fast_products(tensors["weight"] if way == "unseen" else None):
            found = linear(*tensors.values())
    if way == "fast":
        torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(found, learned), gradients(expected, learned)):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("all_sizes")
def test_layers_that_learn_are_differentiated_twice_and_by_functions():
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((3, 8), (6, 8), (6,))]

    def penalty(function, *tensors: torch.Tensor) -> torch.Tensor:
        x = tensors[0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x, *tensors[1:]).sin().sum(), x, create_graph=True)
        return gradient.square().sum()

    ours, theirs = ([t.clone().requires_grad_() for t in tensors[1:]] for _ in range(2))
    penalty(linear, tensors[0], *ours).backward()
    penalty(F.linear, tensors[0], *theirs).backward()
    by_functions = [
        torch.func.grad(lambda *t, f=f: f(*t).sin().sum(), argnums=(0, 1, 2))(*tensors) for f in (linear, F.linear)
    ]
    for found, expected in [*((a.grad, b.grad) for a, b in zip(ours, theirs)), *zip(*by_functions)]:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("all_sizes")
@pytest.mark.parametrize("changing", [(0,), (1,), (2,), (0, 1, 2)])
def test_layers_that_learn_are_differentiated_forwards(changing):
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((3, 8), (6, 8), (6,))]

    def changes(function) -> tuple[torch.Tensor, torch.Tensor]:
        def of(*chosen: torch.Tensor) -> torch.Tensor:
            return function(*(dict(zip(changing, chosen)).get(i, t) for i, t in enumerate(tensors)))

        inputs = tuple(tensors[i] for i in changing)
        return torch.func.jvp(of, inputs, tuple(t.cos() for t in inputs))

    for found, expected in zip(changes(linear), changes(F.linear)):
        torch.testing.assert_close(found, expected)
    hessians = [
        torch.func.hessian(lambda x, f=f: f(x, *tensors[1:]).sin().sum())(tensors[0]) for f in (linear, F.linear)
    ]
    torch.testing.assert_close(*hessians, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("all_sizes")
def test_weights_may_change_where_no_gradient_needs_them():
    """As those behind frozen layers may between the two passes."""
    x, weight = torch.ones(2, 8), torch.ones(6, 8, requires_grad=True)
    out = linear(x, weight)
    with torch.no_grad():
        weight.mul_(2)
    out.sum().backward()
    assert torch.equal(weight.grad, torch.full((6, 8), 2.0))


@pytest.mark.usefixtures("all_sizes")
def test_only_inside_are_results_left_out():
    x, weight = torch.ones(2, 8), torch.ones(6, 8, requires_grad=True)
    with fast_products(weight):
        with fast_products():
            assert linear(x, weight).any()
        assert linear(x, weight.detach().requires_grad_()).any()  # another layer
        with pytest.raises(ValueError, match="left"), fast_products():
            raise ValueError("left")
        assert not linear(x, weight).any()
        with torch.no_grad():
            assert linear(x, weight).any()
    assert linear(x, weight).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_with_weights_of_each_sample(dtype):
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in ((3, 5, 8), (3, 6, 8), (6,))]
    found = linear_of_samples(*tensors)
    expected = torch.stack([F.linear(x, weight, tensors[2]) for x, weight in zip(*tensors[:2])])
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(found, tensors), gradients(expected, tensors)):
        torch.testing.assert_close(ours, theirs)
