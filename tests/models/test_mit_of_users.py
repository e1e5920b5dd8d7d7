"""MiT with what users put into its blocks: hooks, layers, convolutions and weights of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg.models.backbones.mit import Block, map_to_tokens, tokens_to_map
from mmseg.models.cpu import linear as cpu_linear
from mmseg.models.layers.linear import Linear
from tests.models.test_mit import INNER, projected, tiny


@pytest.mark.parametrize("part", INNER)
def test_what_a_hook_sees_can_be_learned_from(part):
    """As a loss on maps inside of the backbone does."""
    model, seen = tiny(drop_path_rate=0.0), []
    model.get_submodule(part).register_forward_hook(lambda _m, _i, out: seen.append(out))
    model(torch.randn(1, 3, 64, 64))  # with a single key queries would have no gradient
    [out] = seen
    (out[0] if isinstance(out, tuple) else out).square().sum().backward()
    gradients = [weight.grad for weight in model.get_submodule(part).parameters()]
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_hooks_of_weights_see_the_whole_gradient_once():
    seen, model = [], tiny(drop_path_rate=0.0)
    weight = model.block1[0].mlp.fc1.weight
    projected(model(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).backward()
    expected, weight.grad = weight.grad, None
    weight.register_hook(lambda gradient: seen.append(gradient) or gradient / 2)
    projected(model(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).backward()
    assert len(seen) == 1
    torch.testing.assert_close(weight.grad, expected / 2, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_weights_that_are_lent_for_one_call_get_their_gradients():
    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    lent = {name: (1.5 * weight.detach()).requires_grad_() for name, weight in block.named_parameters()}
    found = torch.autograd.grad(torch.func.functional_call(block, lent, (x, 4, 4)).sin().sum(), list(lent.values()))
    block.load_state_dict(lent)
    expected = torch.autograd.grad(block(x, 4, 4).sin().sum(), list(block.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["attn.proj", "mlp.fc2"])
def test_layers_of_a_user_in_a_block_are_called_as_the_formula_says(place):
    """Dropout draws once, and what is no linear layer sees all tokens, with a graph and without one."""

    class Own(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.seen = layer, []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(tuple(x.shape))
            return self.layer(x).relu()

    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    own = Own(Linear(32 if place == "mlp.fc2" else 8, 8))
    setattr(block.get_submodule(place.split(".")[0]), place.split(".")[1], own)
    out = block(x, 4, 4)
    out.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(block(x, 4, 4), out)
    assert own.seen == [(2, 16, own.layer.in_features)] * 2


@pytest.mark.parametrize("grad", [False, True])
def test_convolutions_of_a_user_in_a_block_are_computed_as_they_are(grad):
    """Other kernels and strides, as in a variant with overlapping reductions."""
    block, x = Block(8, 1, 2, 0.0), torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))
    block.attn.sr = nn.Conv2d(8, 8, 3, stride=2, padding=1)
    block.mlp.dwconv.dwconv = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32)
    with torch.set_grad_enabled(grad):
        keys = block.attn.norm(map_to_tokens(block.attn.sr(tokens_to_map(x, 8, 8))))
        key, value = block.attn.kv(keys).chunk(2, dim=-1)
        mixed = (block.attn.q(x) @ key.transpose(1, 2) * 8**-0.5).softmax(-1) @ value
        torch.testing.assert_close(block.attn(x, 8, 8), block.attn.proj(mixed), rtol=1e-5, atol=1e-5)
        hidden = map_to_tokens(block.mlp.dwconv.dwconv(tokens_to_map(block.mlp.fc1(x), 8, 8)))
        expected = block.mlp.fc2(nn.functional.gelu(hidden))
        torch.testing.assert_close(block.mlp(x, 8, 8), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_hook_in_a_large_perceptron_sees_all_tokens():
    mlp, seen = Block(64, 1, 8, 0.0).mlp, []
    mlp.fc1.register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape)))
    mlp(torch.zeros(1, 65 * 400, 64), 65, 400)
    assert seen == [(1, 65 * 400, 256)]


@pytest.mark.parametrize("whole_layer", [False, True])
def test_tied_weights_in_a_block_get_all_their_gradients(whole_layer, monkeypatch):
    """The last layer of a branch is left out where gradients are computed, but not where it is another one, too."""
    monkeypatch.setattr(cpu_linear, "_LEAST", 0)
    torch.manual_seed(0)
    block, x = Block(8, 1, 2, 0.0), torch.randn(2, 30, 8, requires_grad=True)
    if whole_layer:
        block.attn.q = block.attn.proj
    block.attn.q.weight = block.attn.proj.weight
    learned = [x, *block.parameters()]
    found = torch.autograd.grad(block(x, 6, 5).sin().sum(), learned)
    block.register_forward_hook(lambda *_: None)  # by which it is computed as the formula says
    expected = torch.autograd.grad(block(x, 6, 5).sin().sum(), learned)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_of_a_user_draws_once():
    """The gradients are those of what has been drawn in the forward pass, on all devices."""
    mlp = Block(8, 1, 2, 0.0).mlp
    mlp.fc2 = nn.Sequential(mlp.fc2, nn.Dropout(0.5))
    out = mlp(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)), 4, 4)
    out.sum().backward()
    torch.testing.assert_close(mlp.fc2[0].bias.grad, 2.0 * (out != 0).sum((0, 1)))


def test_a_look_at_a_block_costs_no_hidden_maps():
    """With a hook it is computed by the plain formula, and what is cheap is made again nevertheless."""
    block, kept = Block(8, 1, 2, 0.0), []
    block.register_forward_hook(lambda _module, _inputs, out: None)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(tuple(x.shape)) or x, lambda x: x):
        block(torch.randn(2, 25, 8), 5, 5)
    assert (2, 25, 8) in kept and not {(2, 25, 32), (2, 32, 5, 5), (50, 32)} & set(kept)


@torch.no_grad()
@pytest.mark.parametrize("place", ["", "attn", "attn.proj", "norm2", "mlp.fc2"])
@pytest.mark.parametrize("wide", [False, True])
def test_sums_are_not_written_into_what_others_hold(place, wide):
    """What goes into a block, and what a hook has seen, stay as they were; with large maps in strips, too."""
    torch.manual_seed(0)
    (dim, h, w) = (64, 65, 400) if wide else (8, 6, 5)
    block, held = Block(dim, 1, 8 if wide else 2, 0.1).eval(), []
    x = torch.randn(1, h * w, dim)
    before = x.clone()
    plain = block(x, h, w)
    block.get_submodule(place).register_forward_hook(
        lambda _module, inputs, out: held.extend((tensor, tensor.clone()) for tensor in (inputs[0], out))
    )
    torch.testing.assert_close(block(x, h, w), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)
    assert len(held) == 2 and all(torch.equal(tensor, copy) for tensor, copy in held)


@torch.no_grad()
def test_stochastic_depth_without_a_graph_draws_once_for_each_branch():
    torch.manual_seed(0)
    block, x = Block(8, 1, 2, 0.5), torch.randn(16, 20, 8)
    torch.manual_seed(1)
    found = block(x, 5, 4)
    torch.manual_seed(1)
    y = x + block.drop_path(block.attn(block.norm1(x), 5, 4))
    torch.testing.assert_close(found, y + block.drop_path(block.mlp(block.norm2(y), 5, 4)), rtol=1e-5, atol=1e-5)
