"""3x3 convolutions by Winograd's minimal filtering on a CPU: a quarter of the multiplications.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, with tiles of 4x4 results, F(4x4, 3x3):
the 6x6 inputs of a tile are transformed by sums, every one of the 36 places is a matrix product over the channels, and
another transform gives the 16 results. Rounding differs from that of the plain sums by some 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.linear import linear, uses_onednn

_TILE = 4  # results of a tile along a side; its inputs are two more
_TILES = 384  # at a time: what belongs to them fits the cache
_LEAST_PIXELS, _LEAST_CHANNELS = 1024, 128  # below, the transforms take longer than they save
# the transform of the weights, 3 -> 6
_G = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
# that of the products, 6 -> 4
_A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_BIAS = 7  # the place that counts once in every result of its tile


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, of_relu: bool = False, relu: bool = False) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)``, with a ReLU before or behind it: (n, C, h, w) -> (n, C_out, h, w).

    Args:
        of_relu: convolve ``relu(x)``.
        relu: give the ReLU of the result.
    """
    large = x.shape[-2] * x.shape[-1] >= _LEAST_PIXELS and min(weight.shape[:2]) >= _LEAST_CHANNELS
    if large and uses_onednn(x):
        return _winograd(x, weight, bias, of_relu, relu)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        x = x.contiguous()  # from channels-last maps the gradient of the weight takes four times as long
    out = F.conv2d(F.relu(x) if of_relu else x, weight, bias, padding=1)
    return F.relu(out) if relu else out


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``F.conv2d(x, weight, bias)`` with a `weight` (C_out, C, 1, 1), on one thread several times faster."""
    if not uses_onednn(x):
        out = F.conv2d(x, weight, bias)
        return F.relu(out) if relu else out
    return linear(x.permute(0, 2, 3, 1).contiguous(), weight.flatten(1), bias, relu).permute(0, 3, 1, 2)


def _winograd(x: Tensor, weight: Tensor, bias: Tensor | None, of_relu: bool = False, relu: bool = False) -> Tensor:
    (n, _, height, width), places, image = x.shape, _transformed(weight), x.permute(0, 2, 3, 1)
    down, across = -(-height // _TILE), -(-width // _TILE)  # tiles
    out = x.new_empty(n, _TILE * down, _TILE * across, len(weight))
    results, rows = _blocks(out), max(1, _TILES // (n * across))
    for top in range(0, down, rows):
        bottom = min(top + rows, down)
        transformed = _inputs_of_tiles(_blocks(_strip(image, top, bottom, across, of_relu)))
        products = torch.bmm(transformed.flatten(1, 3), places)  # (36, n * r * c, C_out)
        if bias is not None:
            products[_BIAS] += bias
        _results_of_tiles(products, results[:, :, top:bottom], relu)
    return out[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _strip(image: Tensor, top: int, bottom: int, across: int, of_relu: bool) -> Tensor:
    """What the tiles of rows `top` to `bottom` see of an image (n, h, w, C): (n, 4 (r + 1), 4 (c + 1), C)."""
    n, height, width, channels = image.shape
    strip = image.new_empty(n, _TILE * (bottom - top + 1), _TILE * (across + 1), channels)
    start = _TILE * top - 1  # a row above, a column left, and the rest below and right
    first, last = max(start, 0), min(start + strip.shape[1], height)
    inside = strip[:, first - start : last - start, 1 : width + 1]
    for margin in (strip[:, : first - start], strip[:, last - start :], strip[:, :, :1], strip[:, :, width + 1 :]):
        margin.zero_()
    torch.clamp_min(image[:, first:last], 0, out=inside) if of_relu else inside.copy_(image[:, first:last])
    return strip


def _blocks(image: Tensor) -> Tensor:
    """(n, 4 r, 4 c, C) -> (n, 4, r, 4, c, C), a view: the rows, and the columns, of the same place in a tile."""
    return image.unflatten(1, (-1, _TILE)).unflatten(3, (-1, _TILE)).permute(0, 2, 1, 4, 3, 5)


@lru_cache(maxsize=2)
def _along_both_axes(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """A transform along one axis, m -> k, as that of a square: (k * k, m * m)."""
    with torch.inference_mode(False):
        matrix = torch.tensor(transform, dtype=torch.float64)
        return torch.kron(matrix, matrix).float()


def _transformed(weight: Tensor) -> Tensor:
    """The weights (C_out, C, 3, 3) of all 36 places of a tile, (36, C, C_out)."""
    lines = weight.permute(0, 2, 3, 1).flatten(1, 2)  # (C_out, 9, C), copied unless it is channels-last
    return torch.bmm(_along_both_axes(_G).expand(len(lines), -1, -1), lines).permute(1, 2, 0)


def _inputs_of_tiles(strip: Tensor) -> Tensor:
    """Rows of tiles and the first row after them (n, 4, r + 1, 4, c + 1, C) -> transformed (36, n, r, c, C)."""
    n, _, rows, _, columns, channels = strip.shape
    lines = strip.new_empty(6, n, rows - 1, *strip.shape[3:])
    _inputs([strip[:, i % _TILE, i // _TILE : i // _TILE + rows - 1] for i in range(6)], lines)
    out = strip.new_empty(6, 6, n, rows - 1, columns - 1, channels)
    for line, places in zip(lines, out):  # (n, r, 4, c + 1, C), (6, n, r, c, C)
        _inputs([line[:, :, j % _TILE, j // _TILE : j // _TILE + columns - 1] for j in range(6)], places)
    return out.flatten(0, 1)


def _results_of_tiles(products: Tensor, out: Tensor, relu: bool) -> None:
    """Write results (n, 4, r, 4, c, C), made of products (36, n * r * c, C)."""
    results = _along_both_axes(_A) @ products.flatten(1)  # (16, n * r * c * C)
    out = out.permute(1, 3, 0, 2, 4, 5)  # (4, 4, n, r, c, C)
    torch.clamp_min(results.view(out.shape), 0, out=out) if relu else out.copy_(results.view(out.shape))


def _inputs(d: Sequence[Tensor], out: Tensor) -> None:
    """The transform of six inputs along one axis, written to `out` (6, ...)."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    low, high = d[4] - d[2], d[3] - d[1]
    torch.sub(d[4], d[2], alpha=5, out=out[0]).add_(d[0], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.add(low, high, alpha=2, out=out[3])
    torch.sub(low, high, alpha=2, out=out[4])
    torch.sub(d[5], d[3], alpha=5, out=out[5]).add_(d[1], alpha=4)
