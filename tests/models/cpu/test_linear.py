"""Products by oneDNN, where PyTorch has it, are those of the weights as they are now, whoever has written them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
