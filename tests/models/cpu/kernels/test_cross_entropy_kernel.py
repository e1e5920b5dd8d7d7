"""Cross entropy of resized logits by its kernel, against the formula in float64 and beside PyTorch's operators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg.models.cpu.kernels import cross_entropy as kernels
from mmseg.models.cpu.kernels.library import library
from mmseg.models.losses import upsampled_cross_entropy
from tests.models.cpu.test_cpu_layers import operations

pytestmark = pytest.mark.skipif(library() is None, reason="there is no C++ compiler here, or MMSEG_KERNELS=off")
KERNEL = "mmseg.cross_entropy.default"
IN_TILES = 1 << 18  # with a size of slices PyTorch's operators are asked for

# n, classes, logits, labels
SIZES = [
    (2, 124, (12, 15), (48, 60)),
    (1, 16, (2, 2), (9, 7)),
    (3, 17, (26, 35), (101, 139)),
    (1, 33, (20, 20), (20, 20)),
    (1, 47, (30, 23), (15, 10)),  # labels smaller than the logits
    (1, 150, (3, 40), (64, 41)),
]


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sample(n: int, classes: int, size, labels_size) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(n, classes, *size), torch.randint(0, classes, (n, *labels_size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    return logits, labels


def formula(logits: Tensor, labels: Tensor, ignored: int = 255, weight: Tensor | None = None) -> tuple[Tensor, ...]:
    """Loss, gradient and hits in the type of `logits`."""
    logits = logits.detach().requires_grad_()
    up = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(up, labels, ignore_index=ignored, reduction="none")
    loss = (losses if weight is None else losses * weight).sum() / labels.numel()
    return loss.detach(), torch.autograd.grad(loss, logits)[0], (up.argmax(1) == labels).sum()


def computed(logits: Tensor, labels: Tensor, *args, **kwargs) -> tuple[Tensor, ...]:
    logits = logits.detach().requires_grad_()
    loss, correct = upsampled_cross_entropy(logits, labels, *args, **kwargs)
    return loss.detach(), torch.autograd.grad(loss, logits)[0], correct


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_the_formula(sizes, weighted, threads):
    logits, labels = sample(*sizes)
    weight = torch.rand(labels.shape) * (torch.rand(labels.shape) < 0.8) if weighted else None
    assert KERNEL in operations(lambda: upsampled_cross_entropy(logits, labels, weight=weight))
    loss, grad, correct = computed(logits, labels, 255, weight)
    expected = formula(logits.double(), labels, 255, weight)
    torch.testing.assert_close(loss.double(), expected[0], rtol=2e-7, atol=0)
    torch.testing.assert_close(grad.double(), expected[1], rtol=0, atol=1e-6 * expected[1].abs().max().item())
    assert correct == expected[2]


def test_is_as_exact_as_operators():
    logits, labels = sample(2, 124, (30, 33), (120, 132))
    _, expected, _ = formula(logits.double(), labels)
    ours, theirs = (
        (computed(logits, labels, **kwargs)[1] - expected).norm() for kwargs in ({}, {"slice_numbers": IN_TILES})
    )
    assert ours < 1.25 * theirs < 2.5e-7 * expected.norm()


def test_threads_change_nothing():
    logits, labels = sample(2, 20, (40, 11), (150, 50))
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(computed(logits, labels))
    torch.set_num_threads(before)
    assert all(torch.equal(x, y) for result in results for x, y in zip(result, results[0], strict=True))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_strides_and_no_gradient(order):
    logits, labels = sample(2, 20, (6, 9), (24, 30))
    loss, grad, correct = computed(logits, labels)
    for x, y in ((logits, labels), (logits.contiguous(memory_format=order), labels.transpose(1, 2).contiguous().mT)):
        found = computed(x, y)
        assert all(map(torch.equal, found, (loss, grad, correct)))
        with torch.no_grad():
            assert KERNEL in operations(lambda x=x, y=y: upsampled_cross_entropy(x, y))
            assert all(map(torch.equal, upsampled_cross_entropy(x, y), (loss, correct)))


@pytest.mark.parametrize("ignored", [255, -100, 3, 0])
@pytest.mark.parametrize("kind", ["random", "equal", "nearly equal"])
def test_ties_and_ignored_classes(kind, ignored):
    """The first of equal classes wins, one that is higher by what no share shows, too; ignored pixels can be hits."""
    logits = {"random": torch.randn, "equal": torch.zeros, "nearly equal": torch.zeros}[kind](1, 40, 5, 6)
    logits[:, 7:9, :, 3:] = 1.0
    if kind == "nearly equal":
        logits[:, :21] = -1e-9
        logits[:, 7:9, :, 3:] = -1e-10
    labels = torch.arange(20 * 24).view(1, 20, 24) % 40
    labels[0, :4] = ignored
    loss, grad, correct = computed(logits, labels, ignored)
    expected = formula(logits, labels, ignored)
    torch.testing.assert_close((loss, grad), expected[:2], rtol=1e-5, atol=1e-6)
    assert correct == expected[2]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("ignored", [False, True])
def test_what_is_no_number_stays_none_and_where_it_is(value, ignored):
    logits, labels = sample(1, 20, (9, 12), (40, 50))
    logits[0, 5, 6, 3] = float(value)
    if ignored:
        labels[:, 20:] = 255
    loss, grad, correct = computed(logits, labels)
    expected = formula(logits, labels)
    assert ignored == expected[0].isfinite().item() == loss.isfinite().item()
    if ignored:  # the gradient of F.cross_entropy would be zero there
        assert grad.isnan().any() == (value != "-inf") and correct == expected[2]
    else:
        assert torch.equal(grad.isnan().any(1), expected[1].isnan().any(1))
    assert grad[:, :, :3].isfinite().all()


def test_a_pixel_that_is_no_number_is_no_hit():
    logits = torch.zeros(1, 20, 4, 4)
    logits[:, 3], logits[:, 5] = 1, float("nan")
    assert computed(logits, torch.full((1, 16, 16), 3))[2] == 0


def test_large_logits():
    logits, labels = sample(1, 20, (4, 4), (16, 16))
    found, expected = computed(1e4 * logits, labels), formula(1e4 * logits.double(), labels)
    torch.testing.assert_close(found[0].double(), expected[0])


def test_a_label_that_is_no_class():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    for label in (200, -1):
        labels[0, 5, 5] = label
        with pytest.raises(RuntimeError, match=f"{label} is out of bounds"):
            upsampled_cross_entropy(torch.zeros(1, 20, 4, 4), labels)


def test_what_is_for_operators(monkeypatch):
    logits, labels = sample(1, 20, (6, 8), (24, 30))
    narrow = torch.randn(1, 12, 6, 8), labels.clamp(max=11)

    def takes(x: Tensor, y: Tensor = labels, **kwargs) -> bool:
        return KERNEL in operations(lambda: upsampled_cross_entropy(x, y, **kwargs))

    assert takes(logits) and takes(logits.bfloat16())
    with torch.autocast("cpu"):
        assert takes(logits)
    assert not takes(logits.double()) and not takes(*narrow) and not takes(logits[:, :, :1])
    assert not takes(logits, slice_numbers=IN_TILES)
    assert not takes(logits, labels.int())
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(lambda x: upsampled_cross_entropy(x, labels)[0])(logits)
    monkeypatch.setenv("MMSEG_KERNELS", "off")
    assert not takes(logits)


def test_gradients_of_gradients_are_refused():
    logits, labels = sample(1, 20, (6, 8), (24, 30))
    loss, _ = upsampled_cross_entropy(logits.requires_grad_(), labels)
    (grad,) = torch.autograd.grad(loss * loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_fake_tensors_have_the_shapes_of_real_ones():
    logits, labels = sample(2, 20, (6, 8), (24, 30))
    for wants_grad in (True, False):
        found = kernels.cross_entropy(logits, labels, 255, None, wants_grad)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = mode.from_tensor(logits), mode.from_tensor(labels)
            for fake, real in zip(kernels.cross_entropy(*fakes, 255, None, wants_grad), found, strict=True):
                assert (fake is None) == (real is None)
                if real is not None:
                    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
