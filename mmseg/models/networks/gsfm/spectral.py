"""The low- and high-frequency modules of GSFM: convolutions of the spectrum of a map, behind a fixed filter.

The formula (specification, section 1.4) is ``x + Re(ifft2(conv2(relu(conv1(filter * fft2(x))))))`` with real and
imaginary parts as channels. Two exact reformulations (section 13) make it several times cheaper:

- The spectrum of a real map is that of its half, conjugated and mirrored, so that only half of it passes the
  convolutions: with A and B the products of the two halves of conv1's weights with real and imaginary part, the
  positions (u, v) and (-u, -v) see A + B and A - B.
- The filter of the high-frequency module is below 1e-6 outside of a window around the highest frequency. There the
  convolutions give one constant, which is an impulse at pixel (0, 0).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.cpu.fourier import map_of_spectrum, part_of_spectrum
from mmseg.models.cpu.winograd import conv1x1
from mmseg.models.layers import full_precision
from mmseg.models.layers.size_tables import table

SIGMA = 7.0  # frequency bins, whatever the size of the map
_REACH = 37  # bins from the highest frequency at which the filter is below 1e-6: a tenth of the rounding errors


class SpectralModule(nn.Module):
    """A residual of the spectrum of a map, behind a filter of the low or of the high frequencies.

    Args:
        channels: C of the map.
        high: whether the high frequencies pass, else the low ones.
    """

    def __init__(self, channels: int, high: bool) -> None:
        super().__init__()
        self.channels, self.high = channels, high
        self.conv1 = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same, at least in float32."""
        if any(conv._forward_hooks or conv._forward_pre_hooks for conv in (self.conv1, self.conv2)):
            return self._in_whole(x)
        size = x.shape[-2:]
        window = filter_window(*size, self.high, x.device)
        with full_precision(x):
            x = x if x.dtype is torch.float64 else x.float()
            parts = part_of_spectrum(x, window.rows, window.columns)
            parts = [part * window.larger.to(x.dtype) for part in parts]
        real, imaginary = self._convolved(*parts, window)
        with full_precision(x):
            constant = self._constant().to(x.dtype)
            real, imaginary = real.to(x.dtype) - constant[:, None, None], imaginary.to(x.dtype)
            residual = map_of_spectrum(real, imaginary, size, window.rows, window.columns)
            residual[..., 0, 0] += constant  # of all positions at once, a constant spectrum is an impulse
            return residual.add_(x)

    def _in_whole(self, x: Tensor) -> Tensor:
        """The formula as it stands, for those who watch the convolutions: hooks see, and may change, what it has."""
        with full_precision(x):
            x = x if x.dtype is torch.float64 else x.float()
            spectrum = torch.fft.fft2(x) * spectral_filter(*x.shape[-2:], self.high).to(x)
            parts = torch.cat([spectrum.real, spectrum.imag], dim=1)  # (n, 2 C, h, w)
        parts = self.conv2(F.relu(self.conv1(parts.to(self.conv1.weight.dtype))))
        with full_precision(x):
            real, imaginary = parts.to(x.dtype).chunk(2, dim=1)
            return x + torch.fft.ifft2(torch.complex(real, imaginary)).real

    def _convolved(self, real: Tensor, imaginary: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """Real and imaginary part (n, C, h', w') of the Hermitian part of what the convolutions give.

        Args:
            real, imaginary: (n, C, h', w') times the larger one of the filters at (u, v) and (-u, -v).
        """
        dtype, C = self.conv1.weight.dtype, self.channels
        a = conv1x1(real.to(dtype), self.conv1.weight[:, :C])  # (n, 2 C, h', w')
        b = conv1x1(imaginary.to(dtype), self.conv1.weight[:, C:])
        bias = self.conv1.bias[:, None, None].to(a.dtype)
        here = _filtered(a + b, window.here).add_(bias).relu_().to(dtype)
        mirrored = _filtered(a - b, window.mirrored).add_(bias).relu_().to(dtype)
        half = self.conv2.weight / 2
        return conv1x1(here + mirrored, half[:C], self.conv2.bias[:C]), conv1x1(here - mirrored, half[C:])

    def _constant(self) -> Tensor:
        """(C,) real part of what the convolutions give where nothing passes the filter; 0 without a window."""
        if not self.high:
            return torch.zeros_like(self.conv2.bias[: self.channels])
        return self.conv2.weight[: self.channels, :, 0, 0] @ F.relu(self.conv1.bias) + self.conv2.bias[: self.channels]


class Window(NamedTuple):
    """The part of a half spectrum that passes the filter."""

    rows: slice
    columns: slice
    larger: Tensor  # (h', w'): the larger one of the filters at (u, v) and at (-u, -v)
    here: Tensor | None  # (h', w'): the filter at (u, v), divided by the larger one; None where both are the same
    mirrored: Tensor | None  # (h', w'): the filter at (-u, -v), divided by it


def spectral_filter(height: int, width: int, high: bool) -> Tensor:
    """(height, width) float64 factors of an unshifted spectrum: a Gaussian at the highest frequency, or 1 minus it."""
    u = torch.arange(height, dtype=torch.float64) - height // 2
    v = torch.arange(width, dtype=torch.float64) - width // 2
    gaussian = torch.exp(-(u[:, None] ** 2 + v**2) / (2 * SIGMA**2))
    return gaussian if high else 1 - gaussian


@table
def filter_window(height: int, width: int, high: bool, device: torch.device) -> Window:
    """The window of a map's half spectrum; all of it for the low frequencies."""
    half = width // 2 + 1
    top, bottom, left = 0, height, 0
    if high:  # with both (u, v) and (-u, -v), which differ by one for odd sizes
        top = max(height // 2 - _REACH, 0)
        bottom = min(height - height // 2 + _REACH + 1, height)
        left = max(half - 1 - _REACH, 0)
    full = spectral_filter(height, width, high)
    here = full[top:bottom, left:half]
    mirrored = full[-torch.arange(top, bottom) % height][:, -torch.arange(left, half) % width]
    larger = torch.maximum(here, mirrored)
    safe = larger.clamp(min=torch.finfo(larger.dtype).tiny)
    ratios = ((here / safe).to(device), (mirrored / safe).to(device))
    if height % 2 == width % 2 == 0:  # the filter is symmetric
        ratios = (None, None)
    return Window(slice(top, bottom), slice(left, half), larger.to(device), *ratios)


def _filtered(x: Tensor, factors: Tensor | None) -> Tensor:
    """At least in float32, whatever the precision of the convolutions."""
    return x if factors is None else x * factors.to(torch.promote_types(x.dtype, torch.float32))
