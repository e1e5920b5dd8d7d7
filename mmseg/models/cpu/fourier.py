"""Parts of the spectra of real maps: on a CPU by matrix products, of channels-last maps and only where they are wanted.

A fast transform takes fewer operations, but all frequencies of a map, and slow strides where the channels lie together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.layers.size_tables import table


def part_of_spectrum(x: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
    """``torch.fft.rfft2(x)[..., rows, columns]`` of maps (n, C, h, w): real and imaginary parts (n, C, h', w').

    Args:
        x: at least float32.
        rows, columns: of the half spectrum, with start and stop.
    """
    if not _multiplies(x):
        spectrum = torch.fft.rfft2(x)[..., rows, columns]
        return spectrum.real, spectrum.imag
    n, channels, height, width = x.shape
    across = _across(width, columns.start, columns.stop)  # (2 w', w)
    down = _down(height, rows.start, rows.stop)  # (2 h', 2 h)
    lines = across @ x.permute(0, 2, 3, 1)  # (n, h, 2 w', C)
    parts = down @ lines.reshape(n, 2 * height, -1)  # (n, 2 h', w' C)
    real, imaginary = parts.view(n, 2, rows.stop - rows.start, -1, channels).permute(1, 0, 4, 2, 3)
    return real, imaginary


def map_of_spectrum(real: Tensor, imaginary: Tensor, size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    """The map (n, C, h, w) of a half spectrum that is 0 but for `rows` and `columns`, see :func:`part_of_spectrum`."""
    height, width = size
    if not _multiplies(real):
        spectrum = F.pad(torch.complex(real, imaginary), (0, 0, rows.start, height - rows.stop))
        lines = torch.fft.ifft(spectrum, dim=-2)  # of columns of zeros there are zeros
        return torch.fft.irfft(F.pad(lines, (columns.start, width // 2 + 1 - columns.stop)), n=width)
    n, channels = real.shape[:2]
    parts = torch.stack([real, imaginary], dim=1).permute(0, 1, 3, 4, 2)  # (n, 2, h', w', C)
    lines = _up(height, rows.start, rows.stop) @ parts.reshape(n, 2 * real.shape[2], -1)  # (n, 2 h, w' C)
    back = _back(width, columns.start, columns.stop)  # (w, 2 w')
    return (back @ lines.view(n, height, -1, channels)).permute(0, 3, 1, 2)


def _multiplies(x: Tensor) -> bool:
    """Whether matrix products are the way to go: float32 on CPU, no graph of gradients.

    Graphs that are compiled or exported have them as well: not everything that runs one knows transforms.
    """
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


def _waves(length: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (stop - start, length) in float64 of the frequencies from `start` up to `stop`."""
    turns = torch.arange(start, stop)[:, None] * torch.arange(length) % length
    angles = turns.double() * (2 * math.pi / length)
    return angles.cos(), angles.sin()


@table
def _across(width: int, start: int, stop: int) -> Tensor:
    """(2 w', w): from the columns of a real map to real parts, then imaginary parts."""
    cosines, sines = _waves(width, start, stop)
    return torch.cat([cosines, -sines]).float()


@table
def _down(height: int, start: int, stop: int) -> Tensor:
    """(2 h', 2 h): from real and imaginary parts of each row to those of the frequencies, all real parts first."""
    cosines, sines = _waves(height, start, stop)
    real, imaginary = torch.stack([cosines, sines], dim=2), torch.stack([-sines, cosines], dim=2)
    return torch.cat([real, imaginary]).flatten(1).float()


@table
def _up(height: int, start: int, stop: int) -> Tensor:
    """(2 h, 2 h'): the inverse of :func:`_down`."""
    return (_down(height, start, stop).T / height).contiguous()


@table
def _back(width: int, start: int, stop: int) -> Tensor:
    """(w, 2 w'): the inverse of :func:`_across`; frequencies that have a mirror image count twice."""
    frequencies = torch.arange(start, stop)
    times = torch.where(frequencies * 2 % width == 0, 1.0, 2.0).repeat(2)
    return (_across(width, start, stop).T * (times / width)).contiguous()
