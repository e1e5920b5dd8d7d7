"""3x3 convolutions by Winograd's minimal filtering on a CPU: a fifth of the multiplications.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, with tiles of 6x6 results, F(6x6, 3x3):
the 8x8 inputs of a tile are transformed along both axes, every one of the 64 places is a matrix product over the
channels, and another transform gives the 36 results. Rounding differs from that of the plain sums by some 5e-5 of the
largest value at most.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg.models.cpu.linear import linear, uses_onednn

_TILE, _SEEN = 6, 8  # results of a tile along a side, and its inputs
_TILES = 216  # at a time: what belongs to them fits the cache
_LEAST_PIXELS, _LEAST_CHANNELS = 1024, 128  # below, the transforms take longer than they save
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and infinity: no others round less
_BIAS = _POINTS.index(1.0) * (_SEEN + 1)  # the place that counts once in every result of its tile


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, of_relu: bool = False, relu: bool = False) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)``, with a ReLU before or behind it: (n, C, h, w) -> (n, C_out, h, w).

    Args:
        of_relu: convolve ``relu(x)``.
        relu: give the ReLU of the result.
    """
    large = x.shape[-2] * x.shape[-1] >= _LEAST_PIXELS and min(weight.shape[:2]) >= _LEAST_CHANNELS
    if large and uses_onednn(x) and x.dtype == torch.float32:  # the transforms need its precision
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
    rows = max(1, _TILES // (n * across))
    for top in range(0, down, rows):
        bottom = min(top + rows, down)
        products = torch.bmm(_inputs_of_tiles(_strip(image, top, bottom, across, of_relu)), places)
        if bias is not None:
            products[_BIAS] += bias  # (64, n * r * c, C_out)
        _results_of_tiles(products, out[:, _TILE * top : _TILE * bottom], relu)
        del products  # before the next are made
    return out[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _strip(image: Tensor, top: int, bottom: int, across: int, of_relu: bool) -> Tensor:
    """What the tiles of rows `top` to `bottom` see of an image (n, h, w, C): (n, 6 r + 2, 6 c + 2, C)."""
    n, height, width, channels = image.shape
    strip = image.new_empty(n, _TILE * (bottom - top) + 2, _TILE * across + 2, channels)
    start = _TILE * top - 1  # a row above, a column left, and the rest below and right
    first, last = max(start, 0), min(start + strip.shape[1], height)
    inside = strip[:, first - start : last - start, 1 : width + 1]
    for margin in (strip[:, : first - start], strip[:, last - start :], strip[:, :, :1], strip[:, :, width + 1 :]):
        margin.zero_()
    torch.clamp_min(image[:, first:last], 0, out=inside) if of_relu else inside.copy_(image[:, first:last])
    return strip


class _Transforms(NamedTuple):
    """Those along one axis. Polynomials of 3 and of 6 coefficients are multiplied by their values at 8 points; a
    convolution is that, transposed."""

    inputs: Tensor  # (8, 8)
    results: Tensor  # (6, 8)
    weights: Tensor  # (64, 9), along both axes: places as (column, row), of weights as (row, column)


@lru_cache(maxsize=1)
def _transforms() -> _Transforms:
    with torch.inference_mode(False):
        to_values, of_results, of_weights = (_values_of_polynomials(n) for n in (_SEEN, _TILE, 3))
        weights = torch.einsum("kr,lc->lkrc", of_weights, of_weights).reshape(_SEEN**2, -1)
        return _Transforms(*(m.float().contiguous() for m in (to_values.inverse().T, of_results.T, weights)))


def _values_of_polynomials(coefficients: int) -> Tensor:
    """From coefficients to values at the points and at infinity, where it is the last one: (8, coefficients)."""
    values = torch.linalg.vander(torch.tensor(_POINTS, dtype=torch.float64), N=coefficients)
    return torch.cat([values, torch.eye(coefficients, dtype=torch.float64)[-1:]])


def _transformed(weight: Tensor) -> Tensor:
    """The weights (C_out, C, 3, 3) of all 64 places of a tile, (64, C, C_out)."""
    lines = weight.permute(0, 2, 3, 1).flatten(1, 2)  # (C_out, 9, C), copied unless it is channels-last
    return torch.bmm(_transforms().weights.expand(len(lines), -1, -1), lines).permute(1, 2, 0)


def _inputs_of_tiles(strip: Tensor) -> Tensor:
    """The inputs of all places in the r * c tiles of a strip (n, 6 r + 2, 6 c + 2, C): (64, n * r * c, C)."""
    transform, (n, height, *_) = _transforms().inputs, strip.shape
    lines = strip.new_empty(n, height // _TILE, _SEEN, strip[0, 0].numel())  # (n, r, 8, (6 c + 2) * C)
    for image, out in zip(strip, lines):  # one by one: tiles overlap
        torch.bmm(transform.expand(len(out), -1, -1), image.flatten(1).unfold(0, _SEEN, _TILE).mT, out=out)
    places = lines.unflatten(3, strip.shape[2:]).unfold(3, _SEEN, _TILE)  # (n, r, 8, c, C, 8), a view
    places = transform @ places.permute(5, 2, 0, 1, 3, 4).reshape(_SEEN, -1)
    return places.view(_SEEN**2, -1, strip.shape[-1])


def _results_of_tiles(products: Tensor, out: Tensor, relu: bool) -> None:
    """Write the results (n, 6 r, 6 c, C), made of products (64, n * r * c, C)."""
    transform = _transforms().results
    lines = transform @ products.view(_SEEN, -1)  # (6, 8 * n * r * c * C)
    results = torch.bmm(transform.expand(_TILE, -1, -1), lines.view(_TILE, _SEEN, -1))  # as (column, row)
    out = out.unflatten(1, (-1, _TILE)).unflatten(3, (-1, _TILE)).permute(4, 2, 0, 1, 3, 5)  # (6, 6, n, r, c, C)
    torch.clamp_min(results.view(out.shape), 0, out=out) if relu else out.copy_(results.view(out.shape))
