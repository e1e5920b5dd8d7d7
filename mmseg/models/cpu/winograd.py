"""3x3 convolutions of large maps by Winograd's minimal filtering: a quarter of the multiplications.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, with tiles of 4x4 results, F(4x4, 3x3):
the 6x6 inputs of a tile are transformed by sums, every one of the 36 places is a matrix product over the channels, and
another transform gives the 16 results. Rounding differs from that of the plain sums by some 1e-5 of the largest value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.linear import linear, uses_onednn

_TILE = 4  # results of a tile along a side; its inputs are two more
_ROWS = 8  # rows of tiles at a time: what belongs to them fits the cache
_LEAST_PIXELS, _LEAST_CHANNELS = 4096, 64  # below, the transforms take longer than they save
# the transform of the weights, 3 -> 6
_G = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` of a map (n, C, h, w) -> (n, C_out, h, w)."""
    large = x.shape[-2] * x.shape[-1] >= _LEAST_PIXELS and min(weight.shape[:2]) >= _LEAST_CHANNELS
    if not (large and uses_onednn(x)):
        return F.conv2d(x, weight, bias, padding=1)
    return _winograd(x, weight, bias)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias)`` with a `weight` (C_out, C, 1, 1), on one thread several times faster."""
    if not uses_onednn(x):
        return F.conv2d(x, weight, bias)
    return linear(x.permute(0, 2, 3, 1).contiguous(), weight.flatten(1), bias).permute(0, 3, 1, 2)


def _winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (n, channels, height, width), places = x.shape, _transformed(weight)
    down, across = -(-height // _TILE), -(-width // _TILE)  # tiles
    padded = x.new_zeros(n, _TILE * down + 2, _TILE * across + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    out = x.new_empty(n, _TILE * down, _TILE * across, len(weight))
    for image, result in zip(padded, out):
        for top in range(0, down, _ROWS):
            rows = min(_ROWS, down - top)
            strip = image[_TILE * top : _TILE * (top + rows) + 2]  # (4 rows + 2, W', C)
            _convolve_strip(strip, places, bias, result[_TILE * top : _TILE * (top + rows)])
    return out[:, :height, :width].permute(0, 3, 1, 2)


def _transformed(weight: Tensor) -> list[Tensor]:
    """The weights (C_out, C, 3, 3) of all 36 places of a tile, (C_out, C) each."""
    g = torch.tensor(_G, dtype=weight.dtype)
    rows = torch.einsum("ij,ocjk->iock", g, weight)
    return list(torch.einsum("iock,lk->iloc", rows, g).flatten(0, 1).contiguous())


def _convolve_strip(strip: Tensor, places: list[Tensor], bias: Tensor | None, out: Tensor) -> None:
    """Convolve some rows of tiles, given with a margin of one pixel: (4 r + 2, 4 c + 2, C) -> (4 r, 4 c, C_out)."""
    height, width = out.shape[:2]
    taken = [strip[i : i + height - 3 : _TILE] for i in range(6)]  # (r, 4 c + 2, C) each
    products = []
    for i, row in enumerate(_inputs(taken)):
        columns = [row[:, j : j + width - 3 : _TILE] for j in range(6)]  # (r, c, C) each
        transformed = _inputs(columns)
        products.append(_results([linear(v, places[6 * i + j]) for j, v in enumerate(transformed)]))
    for j in range(_TILE):
        for i, result in enumerate(_results([row[j] for row in products])):
            if bias is not None:
                result = result.add_(bias)
            out[i::_TILE, j::_TILE] = result


def _inputs(d: list[Tensor]) -> list[Tensor]:
    """The transform of six inputs along one axis."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    low, high = d[4] - d[2], d[3] - d[1]
    return [
        torch.sub(d[4], d[2], alpha=5).add_(d[0], alpha=4),
        even + odd,
        even.sub_(odd),
        torch.add(low, high, alpha=2),
        low.sub_(high, alpha=2),
        torch.sub(d[5], d[3], alpha=5).add_(d[1], alpha=4),
    ]


def _results(m: list[Tensor]) -> list[Tensor]:
    """Four results along one axis, from the six places."""
    sum_12, sum_34 = m[1] + m[2], m[3] + m[4]
    difference_12, difference_34 = m[1] - m[2], m[3] - m[4]
    return [
        (m[0] + sum_12).add_(sum_34),
        torch.add(difference_12, difference_34, alpha=2),
        sum_12.add_(sum_34, alpha=4),
        difference_12.add_(difference_34, alpha=8).add_(m[5]),
    ]
