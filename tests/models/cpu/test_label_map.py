"""The label map equals the literal formula: two bilinear resizes, then argmax. With kernels and without them."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg.errors import ConfigError
from mmseg.models.cpu.kernels.library import kernels_for
from mmseg.models.cpu.label_map import _axes, label_map, possible_winners, resize_logits
from tests.models.cpu.test_cpu_layers import operations


@pytest.fixture(autouse=True, params=["on", "off"], ids=["kernels", "no kernels"])
def _kernels(request, monkeypatch):
    monkeypatch.setenv("MMSEG_KERNELS", request.param)
    with torch.no_grad():  # kernels have no derivatives
        yield


@pytest.fixture
def num_threads():
    """A function that sets the number of threads for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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
    assert_same_labels(torch.randn(30, 60, 108, generator=torch.Generator().manual_seed(1)), sizes)  # all can win


@pytest.mark.parametrize(
    ("num_classes", "height", "width", "sizes"),
    [
        (255, 13, 7, [(52, 28), (49, 30)]),
        (1, 9, 9, [(70, 50)]),
        (2, 1, 1, [(37, 41)]),
        (3, 1, 40, [(5, 161), (33, 157)]),
        (7, 90, 2, [(45, 19)]),
        (5, 70, 101, [(9, 17)]),  # most logits have no share
        (6, 40, 50, [(41, 51), (43, 53), (45, 55), (71, 81)]),  # pixels of many logits
        (6, 33, 47, []),
    ],
)
def test_scores_of_labels_are_the_best_in_float64(num_classes, height, width, sizes, num_threads):
    generator = torch.Generator().manual_seed(height)
    logits = 3 * torch.randn(height, width, num_classes, generator=generator).permute(2, 0, 1)  # of any strides
    scores = literal(logits.double(), sizes)
    for threads in (1, 2, 3):
        num_threads(threads)
        labels = label_map(logits, sizes)
        assert labels.shape == scores.shape[1:] and labels.dtype == torch.uint8
        chosen = scores.gather(0, labels[None].long())[0]
        assert (scores.amax(dim=0) - chosen).max() <= 1e-5
        assert (labels != scores.argmax(dim=0)).float().mean() < 1e-3


def test_autocast_around_it_changes_nothing(monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits, sizes = torch.randn(9, 24, 36, generator=torch.Generator().manual_seed(0)), [(96, 144), (90, 131)]
    expected = label_map(logits, sizes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(label_map(logits, sizes), expected)


def test_every_pixel_is_in_one_tile_with_all_that_it_is_made_of():
    rows, columns = _axes((60, 108), ((240, 432), (240, 427)), torch.float32)
    assert len(rows) == 6 and len(columns) == 6
    for strips, length, logits in ((rows, 240, 60), (columns, 427, 108)):
        assert [i for strip in strips for i in range(length)[strip.pixels]] == list(range(length))
        assert strips[0].nearest.start == 0 and strips[-1].nearest.stop == logits
        for strip in strips:
            assert strip.logits.start >= strip.nearest.start - 1 and strip.logits.stop <= strip.nearest.stop + 1
            assert torch.allclose(strip.weights.sum(dim=1), torch.ones(len(strip.weights)))
    assert _axes((60, 108), ((60, 108), (7, 9)), torch.float32) is not None
    assert _axes((60, 108), ((61, 107), (62, 109), (63, 111)), torch.float32) is None  # pixels of four logits


def test_a_class_of_a_single_line_is_seen_from_the_tiles_beside_it(monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    for line in range(24):
        for dim in (1, 2):
            logits = torch.zeros(6, 24, 36)
            logits[0] = 1.0  # anywhere else class 5 cannot win
            logits[5].select(dim - 1, line).fill_(900.0)
            assert_same_labels(logits, [(96, 144), (90, 131)])


def test_a_class_of_minus_infinity_wins_nowhere(monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits, sizes = sparse_logits(19, 24, 36, 3), [(96, 144), (90, 131)]
    logits[7] = -1e4
    expected = label_map(logits, sizes)
    logits[7] = -torch.inf  # which a weight of zero would make no number
    assert (label_map(logits, sizes) != expected).float().mean() < 1e-4


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_numbers_without_end_give_labels_that_exist(value, monkeypatch):
    """Weighted sums of the largest numbers would overflow to no numbers, to which no class is equal."""
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits, sizes = sparse_logits(19, 60, 60, 3), [(240, 241), (233, 238)]
    logits[7, 10:40, 10:40] = value
    labels = label_map(logits, sizes)
    inside = labels[50:150, 50:150]
    assert labels.max() < 19 and torch.all(inside == 7 if value > 0 else inside != 7)
    logits[:, 10:40, 10:40] = value
    assert label_map(logits, sizes).max() < 19


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_single_number_without_end_is_seen(value, monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits, sizes = sparse_logits(19, 60, 60, 3), [(240, 241)]
    expected = label_map(logits, sizes)
    for row in (0, 33, 35, 59):
        changed = logits.clone()
        changed[7, row, 30] = value
        labels, near = label_map(changed, sizes), torch.zeros(240, 241, dtype=torch.bool)
        near[max(4 * row - 2, 0) : 4 * row + 6, 118:127] = True  # pixels that it has a share in
        assert torch.all((labels == expected) | near)
        inside = labels[4 * row + 1 : 4 * row + 3, 121:124]
        assert torch.all(inside == 7 if value > 0 else inside != 7)


def test_ties_go_to_the_lowest_class(monkeypatch):
    monkeypatch.setattr("mmseg.models.cpu.label_map._SMALL", 0)
    logits = torch.zeros(9, 16, 16)
    logits[[3, 7]] = 1.0
    assert torch.all(label_map(logits, [(64, 64), (60, 61)]) == 3)
    assert torch.all(label_map(torch.zeros(9, 16, 16), [(64, 64), (60, 61)]) == 0)


def test_hopeless_classes_are_left_out():
    logits = sparse_logits(60, 24, 36, 1)
    kept = possible_winners(logits)
    best = literal(logits, [(96, 144), (90, 131)]).argmax(dim=0).unique()
    assert 1 <= kept.flatten(1).any(dim=1).sum() < 60 and torch.all(kept[best].flatten(1).any(dim=1))
    logits[1, :8] += 100
    kept = possible_winners(logits)
    assert kept[:, :7].flatten(1).any(dim=1).nonzero().flatten().tolist() == [1]
    assert kept[:, 7].sum() > 36  # next to row 8, where other classes are the best
    assert possible_winners(torch.ones(3, 1, 1)).all()


def test_no_resize_and_too_many_classes():
    logits = torch.randn(5, 4, 6)
    assert torch.equal(label_map(logits, []), logits.argmax(dim=0).to(torch.uint8))
    assert torch.equal(resize_logits(logits, []), logits)
    for sizes in ([], [(200, 300), (200, 300)]):
        logits = torch.randn(20, 200, 300)
        assert torch.equal(label_map(logits, sizes), logits.argmax(dim=0).to(torch.uint8))
        if kernels_for(logits) is None:  # no tile of products, which are many times the work
            calls = operations(lambda sizes=sizes, logits=logits: label_map(logits, sizes))
            assert calls == ["aten.argmax.default", "aten._to_copy.default"]
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


@torch.no_grad()
def test_label_map_with_another_default_device():
    logits, sizes = torch.randn(20, 12, 13), [(49, 57), (51, 62)]
    torch.set_default_device("meta")
    try:
        found = label_map(logits, sizes)
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, resize_logits(logits, sizes).argmax(0).to(torch.uint8))
