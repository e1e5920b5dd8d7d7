"""Residual branches a few samples at a time: their values and gradients, and what is left out of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg.models.cpu import linear as cpu_linear
from mmseg.models.cpu import samples
from mmseg.models.cpu.samples import add_by_samples
from mmseg.models.layers.linear import Linear


class Branch(nn.Module):
    """Counts the samples that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(6), nn.Linear(6, 6)
        self.linear.bias.requires_grad_(False)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return self.linear(self.norm(x)).tanh()


@pytest.fixture
def branch() -> Branch:
    torch.manual_seed(0)
    return Branch().double()


def both_ways(branch: Branch, x: torch.Tensor, factors: torch.Tensor | None) -> tuple[list, list]:
    """Result and gradients of x and of the trained weights: a few samples at a time, and by the formula."""
    trained = [weight for weight in branch.parameters() if weight.requires_grad]
    results = []
    for out in (
        add_by_samples(x, branch, list(branch.parameters()), 12, factors),
        x + branch(x) * (1.0 if factors is None else factors),
    ):
        inputs = [x, *trained] if x.requires_grad else trained
        results.append([out, *torch.autograd.grad((out * torch.linspace(-1, 1, 6)).sin().sum(), inputs)])
    return results[0], results[1]


@pytest.mark.parametrize("factors", [None, [1.25, 1.25, 0, 1.25, 0], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize("of_input", [True, False])
def test_values_and_gradients_are_those_of_the_formula(branch, factors, of_input, monkeypatch):
    monkeypatch.setattr(samples, "_NUMBERS", 2 * 7 * 12)  # two samples at a time
    x = torch.randn(5, 7, 6, dtype=torch.float64, requires_grad=of_input)
    factors = None if factors is None else torch.tensor(factors, dtype=torch.float64).view(5, 1, 1)
    for found, expected in zip(*both_ways(branch, x, factors)):
        torch.testing.assert_close(found, expected)
    assert branch.linear.bias.grad is None


@pytest.mark.parametrize("name", ["norm.weight", "linear.bias"])
def test_weights_that_change_between_the_passes_are_an_error(branch, name):
    """Frozen ones (the bias), too: what is computed again would be something else."""
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    out = add_by_samples(x, branch, list(branch.parameters()), 12, None)
    with torch.no_grad():
        branch.get_parameter(name).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_samples_that_are_dropped_are_not_computed(branch, monkeypatch):
    monkeypatch.setattr(samples, "_NUMBERS", 2 * 7 * 12)
    x = torch.randn(6, 7, 6, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([2.0, 2.0, 2.0, 0.0, 2.0, 0.0])
    add_by_samples(x, branch, list(branch.parameters()), 12, factors).sum().backward()
    assert branch.seen == [2, 1, 1, 2, 1, 1]  # forward, and once more for the gradients


def test_autocast_of_the_forward_pass_holds_in_the_backward_pass(branch):
    branch, x = branch.float(), torch.randn(3, 7, 6, requires_grad=True)
    types = []
    branch.linear.register_forward_hook(lambda _module, _inputs, out: types.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = add_by_samples(x, branch, list(branch.parameters()), 12, None)
    out.sum().backward()
    assert types == [torch.bfloat16, torch.bfloat16] and branch.linear.weight.grad.any()


def test_the_last_product_is_not_made_again(monkeypatch):
    """Its result shapes no gradient: those of all weights are right although it is given as zeros."""
    monkeypatch.setattr(cpu_linear, "_LEAST", 0)
    torch.manual_seed(0)
    first, last, x = Linear(6, 8), Linear(8, 6), torch.randn(3, 7, 6, requires_grad=True)
    results = []

    def branch(part: torch.Tensor) -> torch.Tensor:
        results.append(last(first(part).sigmoid()))
        return results[-1]

    weights = [*first.parameters(), *last.parameters()]
    found = torch.autograd.grad(add_by_samples(x, branch, weights, 8, None, last.weight).sin().sum(), [x, *weights])
    assert results[0].any() and not results[-1].any()
    expected = torch.autograd.grad((x + branch(x)).sin().sum(), [x, *weights])
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
