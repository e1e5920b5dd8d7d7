"""Parts of spectra by matrix products are those of the fast transform, and the way back is its inverse."""

from __future__ import annotations

import pytest
import torch

from mmseg.models.cpu.fourier import map_of_spectrum, part_of_spectrum


@pytest.mark.parametrize("size", [(12, 16), (7, 9), (8, 5), (5, 8), (1, 1)])
@torch.no_grad()
def test_products_are_the_fast_transform(size):
    """Of double precision the functions take the fast transform: here it is the one that is not under test."""
    height, half = size[0], size[1] // 2 + 1
    windows = [(slice(0, height), slice(0, half)), (slice(height // 3, height), slice(half // 2, half))]
    x = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0))[:, 2:5]
    for rows, columns in windows:
        expected = torch.fft.rfft2(x.double())[..., rows, columns]
        real, imaginary = part_of_spectrum(x, rows, columns)
        torch.testing.assert_close(torch.complex(real, imaginary), expected.to(torch.complex64), rtol=1e-5, atol=1e-5)
        noise = torch.randn(2, *real.shape, generator=torch.Generator().manual_seed(1))  # no spectrum of a real map
        found = map_of_spectrum(*noise, size, rows, columns)
        assert found.shape == x.shape
        slow = map_of_spectrum(*noise.double(), size, rows, columns)
        torch.testing.assert_close(found.double(), slow, rtol=1e-5, atol=1e-6)
    whole = part_of_spectrum(x, *windows[0])
    torch.testing.assert_close(map_of_spectrum(*whole, size, *windows[0]), x, rtol=1e-5, atol=1e-6)


def test_gradients_pass():
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    window = slice(1, 4), slice(1, 4)
    assert torch.autograd.gradcheck(lambda x: map_of_spectrum(*part_of_spectrum(x, *window), (4, 6), *window), x)
