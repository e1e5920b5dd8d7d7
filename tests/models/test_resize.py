"""Resizing: the gradient of a halved map in channels-last order, and the matrix of a resized line."""

import pytest
import torch
import torch.nn.functional as F

from mmseg.models.layers.resize import halve, linear_weights, upsample_logits


@pytest.mark.parametrize("size", [(8, 12), (7, 12)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradient_of_a_halved_map(size, channels_last):
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    found = halve(x)
    expected = F.interpolate(x, (size[0] // 2, size[1] // 2), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)
    seed = torch.randn_like(found)
    torch.testing.assert_close(torch.autograd.grad(found, x, seed)[0], torch.autograd.grad(expected, x, seed)[0])


@pytest.mark.parametrize(("length", "resized"), [(120, 480), (7, 50), (30, 15), (1, 8), (9, 9)])
def test_matrix_of_a_resized_line(length, resized):
    x = torch.randn(3, 1, length, dtype=torch.float64)
    expected = F.interpolate(x, resized, mode="linear", align_corners=False)
    torch.testing.assert_close(x @ linear_weights(length, resized, torch.float64).t(), expected)


def test_the_matrix_of_a_line_is_made_once():
    """A GPU is waited for when it gets the matrix, not with every loss."""
    assert linear_weights(7, 50) is linear_weights(7, 50)
    assert linear_weights(7, 50, torch.float64).dtype == torch.float64


def test_logits_are_resized_in_float32_at_least():
    """Neighbours that bfloat16 holds apart have values between them that it does not."""
    logits = torch.tensor([[[[128.0, 129.0]]]])
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        found = upsample_logits(logits.to(dtype), (1, 4))
        assert found.flatten().tolist() == [128.0, 128.25, 128.75, 129.0]
        assert found.dtype == torch.promote_types(dtype, torch.float32)
