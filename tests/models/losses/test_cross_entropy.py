"""Cross entropy in slices: equal to the formula, and small."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg.models.losses import CrossEntropyLoss, upsampled_cross_entropy
from tests.models.losses.largest import Largest
from tests.reference import segformer as reference

SIZES = [
    ((16, 24), (64, 96)),  # the usual factor of 4
    ((26, 35), (101, 139)),
    ((7, 9), (50, 33)),
    ((20, 20), (20, 20)),
    ((30, 20), (15, 10)),  # labels smaller than the logits
    ((1, 1), (8, 8)),
]


def sample(size, labels_size, classes: int = 12, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits = (3 * torch.randn(n, classes, *size)).requires_grad_()
    labels = torch.randint(0, classes, (n, *labels_size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    labels[0, 0] = 255  # a whole row
    return logits, labels


@pytest.mark.parametrize("slice_numbers", [None, 4000, 1])
@pytest.mark.parametrize(("size", "labels_size"), SIZES)
def test_equals_the_formula(size, labels_size, slice_numbers):
    logits, labels = sample(size, labels_size)
    loss, correct = upsampled_cross_entropy(logits, labels, slice_numbers=slice_numbers)
    (grad,) = torch.autograd.grad(2.5 * loss, logits)
    expected, accuracy = reference.cross_entropy(logits, labels)
    (expected_grad,) = torch.autograd.grad(2.5 * expected, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(100 * correct / labels.numel(), accuracy)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-6 * expected_grad.abs().max().item())


def test_ignored_pixels_stay_in_the_denominator():
    logits, labels = sample((8, 8), (32, 32))
    loss, _ = upsampled_cross_entropy(logits, labels)
    up = F.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
    counted = F.cross_entropy(up, labels, ignore_index=255, reduction="sum")
    torch.testing.assert_close(loss, counted / labels.numel())


def test_all_pixels_ignored_gives_zero_loss_and_gradient():
    logits, labels = sample((8, 8), (32, 32))
    loss, correct = upsampled_cross_entropy(logits, torch.full_like(labels, 255))
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and correct == 0 and (grad == 0).all()


def test_channels_last_logits():
    logits, labels = sample((8, 9), (32, 36))
    expected, _ = upsampled_cross_entropy(logits, labels)
    last = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    loss, _ = upsampled_cross_entropy(last, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, last)[0], torch.autograd.grad(expected, logits)[0])


def test_large_logits_do_not_overflow():
    logits, labels = sample((4, 4), (16, 16))
    loss, _ = upsampled_cross_entropy(1e4 * logits, labels)
    assert torch.isfinite(loss)


def test_without_a_graph():
    logits, labels = sample((8, 8), (32, 32))
    loss, _ = upsampled_cross_entropy(logits.detach(), labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, upsampled_cross_entropy(logits, labels)[0].detach())


def test_computes_in_float32_under_autocast():
    logits, labels = sample((8, 8), (32, 32))
    low = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = upsampled_cross_entropy(low, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, upsampled_cross_entropy(low.float(), labels)[0])
    loss.backward()
    assert low.grad.dtype == torch.bfloat16


def test_loss_weight():
    logits, labels = sample((8, 8), (32, 32))
    once, correct = CrossEntropyLoss()(logits, labels)
    thrice, same = CrossEntropyLoss(loss_weight=3.0)(logits, labels)
    torch.testing.assert_close(3 * once, thrice)
    assert correct == same


def test_no_tensor_of_label_size_exists():
    """The largest tensors of forward and backward are the coarse logits and their gradient."""
    logits, labels = sample((30, 30), (120, 120), classes=40, n=5)
    with Largest() as largest:
        loss, _ = upsampled_cross_entropy(logits, labels, slice_numbers=40 * 120 * 8)
        loss.backward()
    assert largest.numel <= logits.numel()  # a sixteenth of the upsampled logits


def test_the_first_of_equal_classes_wins():
    """Where several classes are highest, the accuracy counts as an argmax does."""
    logits = torch.zeros(1, 5, 4, 4)
    logits[:, 3:, :, 2:] = 1.0
    labels = torch.arange(16 * 16).view(1, 16, 16) % 5
    _, correct = upsampled_cross_entropy(logits, labels)
    up = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    assert correct == (up.argmax(1) == labels).sum()


def test_a_class_that_is_higher_by_nothing_that_a_share_shows_wins():
    """The exponential of -1e-9 is 1 in float32."""
    logits = torch.zeros(1, 5, 4, 4)
    logits[:, :3] = -1e-9
    labels = torch.arange(16 * 16).view(1, 16, 16) % 5
    _, correct = upsampled_cross_entropy(logits, labels)
    assert correct == (labels == 3).sum()


@pytest.mark.parametrize("ignore_index", [255, -100, 3, 0])
@pytest.mark.parametrize("tied", [False, True])
def test_any_number_may_be_ignored(ignore_index, tied):
    logits = torch.zeros(1, 5, 4, 4) if tied else torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16 * 16).view(1, 16, 16) % 5
    labels[0, :4] = ignore_index
    loss, correct = upsampled_cross_entropy(logits, labels, ignore_index)
    up = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(up, labels, ignore_index=ignore_index, reduction="sum") / labels.numel()
    torch.testing.assert_close(loss, expected)
    assert correct == (up.argmax(1) == labels).sum()


def test_a_label_that_is_no_class_is_no_other_class():
    with pytest.raises(RuntimeError, match="out of bounds"):
        upsampled_cross_entropy(torch.zeros(1, 5, 4, 4), torch.full((1, 8, 8), 200))
