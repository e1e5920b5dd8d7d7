"""Weights in oneDNN's order: the same results, and never those of weights that are no more."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmseg.models.cpu import linear as cpu_linear
from mmseg.models.layers.linear import Linear

ROWS = 300


@pytest.fixture
def layer() -> Linear:
    if not cpu_linear._has_onednn_linear():
        pytest.skip("this PyTorch has no oneDNN")
    torch.manual_seed(0)
    return Linear(24, 40).eval()


@torch.no_grad()
def check(layer: Linear) -> None:
    x = torch.randn(2, ROWS, 24)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@torch.no_grad()
def test_packed_weights_give_the_same_bits(layer):
    x = torch.randn(ROWS, 24)
    plain = torch.cat([layer(part) for part in x.split(ROWS // 3)])  # too few rows
    assert layer.weight not in cpu_linear._packed
    assert torch.equal(layer(x), plain)
    assert layer.weight in cpu_linear._packed


def test_changed_weights_are_packed_again(layer):
    check(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    check(layer)
    layer.load_state_dict({"weight": torch.randn(40, 24), "bias": torch.zeros(40)})
    check(layer)
    layer.weight.data = torch.randn(40, 24)
    check(layer)
    layer.weight.data.add_(0.1)
    check(layer)
    layer.weight = nn.Parameter(torch.randn(40, 24))
    check(layer)
    layer(torch.randn(ROWS, 24)).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()  # which raises no version
    check(layer)


def test_nothing_is_kept_in_training(layer):
    check(layer.train())
    assert layer.weight not in cpu_linear._packed


def test_a_copy_has_its_own(layer):
    check(layer)
    other = copy.deepcopy(layer)
    nn.init.ones_(other.weight)
    check(other)
    check(layer)


def test_they_go_with_the_parameter(layer):
    check(layer)
    before = len(cpu_linear._packed)
    layer.weight = None
    gc.collect()
    assert len(cpu_linear._packed) == before - 1
