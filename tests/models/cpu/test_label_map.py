"""The label map equals the literal formula: two bilinear resizes, then argmax."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg.errors import ConfigError
from mmseg.models.cpu.label_map import _best_classes, label_map, possible_winners, resize_logits


def literal(logits: torch.Tensor, sizes: list) -> torch.Tensor:
    x = logits[None]
    for size in sizes:
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return x[0]


def assert_same_labels(logits: torch.Tensor, sizes: list) -> None:
    """Equal labels; where two classes tie up to rounding, one of them (the kernels' rounding depends on the shape)."""
    scores, labels = literal(logits, sizes), label_map(logits, sizes)
    best, chosen = scores.max(dim=0).values, scores.gather(0, labels[None].long())[0]
    assert labels.dtype == torch.uint8 and tuple(labels.shape) == tuple(sizes[-1])
    assert torch.all(best - chosen <= 1e-5 * logits.abs().max())
    assert (labels != scores.argmax(dim=0)).float().mean() < 1e-4


def sparse_logits(num_classes: int, height: int, width: int, seed: int) -> torch.Tensor:
    """As of a trained network: few classes are anywhere near the best."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_classes, height, width, generator=generator)
    return F.avg_pool2d(logits[None], 3, 1, 1)[0] + 3 * torch.randn(num_classes, 1, 1, generator=generator)


@pytest.mark.parametrize("small", [0, 2**20], ids=["grouped", "at once"])
@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (24, 36, [(96, 144), (90, 131)]),
        (24, 36, [(96, 144), (240, 300)]),
        (24, 36, [(96, 144), (40, 50)]),
        (24, 36, [(96, 144)]),
        (15, 17, [(30, 34), (31, 33)]),
        (16, 20, [(16, 20), (33, 47)]),
        (12, 18, [(24, 36), (96, 144), (90, 140)]),
        (1, 9, [(32, 288), (20, 201)]),
    ],
)
def test_equals_the_formula(height, width, sizes, small, monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", small)
    for seed, num_classes in enumerate((2, 5, 19, 40)):
        assert_same_labels(sparse_logits(num_classes, height, width, seed), sizes)


def test_equals_the_formula_at_full_size():
    logits, sizes = sparse_logits(124, 60, 108, 0), [(240, 432), (240, 427)]
    assert_same_labels(logits, sizes)
    whole = _best_classes(logits, sizes, possible_winners(logits, sizes))
    assert torch.equal(label_map(logits, sizes), whole)  # at the borders between bands, too


def test_ties_go_to_the_lowest_class(monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits = torch.zeros(9, 16, 16)
    logits[[3, 7]] = 1.0
    assert torch.all(label_map(logits, [(64, 64), (60, 61)]) == 3)


def test_hopeless_classes_are_left_out():
    logits = sparse_logits(60, 24, 36, 1)
    sizes = [(96, 144), (90, 131)]
    kept = possible_winners(logits, sizes)
    assert 1 <= len(kept) < 60
    assert set(literal(logits, sizes).argmax(dim=0).unique().tolist()) <= set(kept)
    of_rows = [possible_winners(logits, sizes, slice(top, top + 8)) for top in (0, 8, 16)]
    assert set().union(*of_rows) == set(kept)
    logits[1, :8] += 100
    assert possible_winners(logits, sizes, slice(7)) == [1] != possible_winners(logits, sizes, slice(6, 8))
    with_far_reach = [(48, 72), (96, 144), (90, 131)]
    assert possible_winners(logits, with_far_reach) == list(range(60))


def test_no_resize_and_too_many_classes():
    logits = torch.randn(5, 4, 6)
    assert torch.equal(label_map(logits, []), logits.argmax(dim=0).to(torch.uint8))
    assert torch.equal(resize_logits(logits, []), logits)
    with pytest.raises(ConfigError, match="256 classes"):
        label_map(torch.zeros(256, 2, 2), [(4, 4)])


def test_other_devices_take_the_formula():
    """On a GPU every operation is a launch and every number read is a wait; the meta device stands for one."""
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if not func.is_view:
                calls.append(str(func))
            return func(*args, **(kwargs or {}))

    logits, sizes = torch.empty(124, 60, 108, device="meta"), [(480, 864), (480, 853)]
    with Count():
        labels = label_map(logits, sizes)
    assert labels.device.type == "meta" and labels.dtype == torch.uint8 and labels.shape == (480, 853)
    assert len(calls) == 4, calls  # resize, resize, argmax, cast
