"""Where the keys of focal attention lie: index tables that depend on the size of a map alone.

A query window of 7x7 tokens looks at 289 keys: its own tokens (49), a ring of width 3 around it (132, twelve
tokens twice), the 5x5 pooled windows around it (25), and the pooled maps of three reference frames, the
farther the coarser and the wider (7x7 of 1 cell, 5x5 of 2x2 cells, 3x3 of 3x3 cells per window). The official
code rolls, partitions, unfolds and masks for that. Here all keys stand in one table of rows, and a window
gathers its rows by index:

    row 0 .. N-1   tokens of the target, row-major (N = h * w)
    row N          the zero padding to whole windows: one row for all of it
    then           own pooled map, one cell per window
    then           pooled maps of references 0, 1, 2 with 1, 4 and 9 cells per window, window by window
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmseg.models.layers.size_tables import table

WINDOW = 7
RING = 3
NEIGHBORHOOD = 5  # pooled windows of the target that are seen, per side
REFERENCE_CELLS = (1, 2, 3)  # cells per window side of the references, oldest first
REFERENCE_NEIGHBORHOODS = (7, 5, 3)
RESIZED = 6  # a 7x7 window is resized to 6x6 before it is cut into 2x2 or 3x3 cells
TOKENS = WINDOW**2


def relative_index(neighborhood: int, tokens: int = WINDOW) -> Tensor:
    """Index into a bias table for every query of a window and every cell of a neighbourhood: (49, n * n)."""
    query, key = torch.arange(tokens), torch.arange(neighborhood)
    offset = query[:, None] - key[None, :] + neighborhood - 1  # (7, n)
    index = offset[:, None, :, None] * (neighborhood + tokens - 1) + offset[None, :, None, :]  # (7, 7, n, n)
    return index.reshape(tokens**2, neighborhood**2)


def ring_offsets() -> Tensor:
    """Row and column offsets of the four shifted copies of the window, in their order: (4, 2)."""
    return torch.tensor([(RING, RING), (RING, -RING), (-RING, RING), (-RING, -RING)])


def ring_index() -> Tensor:
    """The 132 positions of four shifted copies of the window (flat over 4 * 49) that lie outside the window."""
    steps = torch.arange(WINDOW, device="cpu")  # also while a model is made on the meta device
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    low, high = WINDOW - RING, RING
    copies = [(y >= low) | (x >= low), (y >= low) | (x < high), (y < high) | (x >= low), (y < high) | (x < high)]
    return torch.stack(copies).flatten().nonzero().flatten()


def resize_matrix() -> Tensor:
    """Bilinear weights (6, 7), float64, that take a window of 7 positions to 6; no sample leaves its window."""
    source = (torch.arange(RESIZED, dtype=torch.float64) + 0.5) * WINDOW / RESIZED - 0.5
    low = source.floor().long()
    matrix = torch.zeros(RESIZED, WINDOW, dtype=torch.float64)
    rows = torch.arange(RESIZED)
    matrix[rows, low] = 1 - (source - low)
    matrix[rows, low + 1] = source - low
    return matrix


@dataclass(frozen=True)
class FocalGeometry:
    """Index tables for maps of h x w tokens in nh x nw windows (W windows in all).

    Attributes:
        queries: (W, 49) rows of the tokens of each window, row-major windows.
        keys: (W, 289) rows of the keys of each window; the padding row where there is no cell.
        outside: (W, 289) True where the cell lies outside its pooled map and must be left out.
        tokens: (N,) position of every token in the (W * 49) window tokens.
    """

    size: tuple[int, int]
    windows: tuple[int, int]
    queries: Tensor
    keys: Tensor
    outside: Tensor
    tokens: Tensor


@table
def focal_geometry(h: int, w: int, device: torch.device) -> FocalGeometry:
    """The tables for a map of `h` x `w` tokens, kept for the sizes used last."""
    if device.type != "cpu":
        geometry = focal_geometry(h, w, torch.device("cpu"))
        tables = {name: getattr(geometry, name).to(device) for name in ("queries", "keys", "outside", "tokens")}
        return replace(geometry, **tables)
    nh, nw = -(-h // WINDOW), -(-w // WINDOW)
    queries, tokens = _window_tokens(h, w, nh, nw)
    keys, outside = _window_keys(h, w, nh, nw, queries)
    return FocalGeometry((h, w), (nh, nw), queries, keys, outside, tokens)


def _rows(y: Tensor, x: Tensor, h: int, w: int) -> Tensor:
    """Table rows of the positions (y, x) of the padded map; positions of the padding share row N."""
    return torch.where((y < h) & (x < w), y * w + x, h * w)


def _window_tokens(h: int, w: int, nh: int, nw: int) -> tuple[Tensor, Tensor]:
    """Rows of the tokens of every window (W, 49), and the window position of every token (N,)."""
    y = (torch.arange(nh)[:, None] * WINDOW + torch.arange(WINDOW)).view(nh, 1, WINDOW, 1)
    x = (torch.arange(nw)[:, None] * WINDOW + torch.arange(WINDOW)).view(1, nw, 1, WINDOW)
    queries = _rows(y, x, h, w).reshape(nh * nw, TOKENS)
    positions = torch.empty(h * w + 1, dtype=torch.long)
    positions[queries.flatten()] = torch.arange(nh * nw * TOKENS)
    return queries, positions[:-1]


def _window_keys(h: int, w: int, nh: int, nw: int, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the 289 keys of every window, and which of them do not exist: (W, 289) each."""
    ring = _ring_rows(h, w, nh, nw)
    parts, outside = [queries, ring], [torch.zeros_like(queries, dtype=bool), torch.zeros_like(ring, dtype=bool)]
    first = h * w + 1
    for cells, neighborhood in [(1, NEIGHBORHOOD), *zip(REFERENCE_CELLS, REFERENCE_NEIGHBORHOODS)]:
        rows, missing = _cell_rows(nh, nw, cells, neighborhood)
        parts.append(torch.where(missing, h * w, rows + first))
        outside.append(missing)
        first += nh * nw * cells**2
    return torch.cat(parts, 1), torch.cat(outside, 1)


def _ring_rows(h: int, w: int, nh: int, nw: int) -> Tensor:
    """Rows of the ring tokens (W, 132): the padded map is a torus."""
    y, x = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
    offsets = ring_offsets()
    y = (y.flatten() + offsets[:, :1]).flatten()[ring_index()]  # (132,) relative to the window
    x = (x.flatten() + offsets[:, 1:]).flatten()[ring_index()]
    y = (torch.arange(nh)[:, None] * WINDOW + y) % (nh * WINDOW)  # (nh, 132)
    x = (torch.arange(nw)[:, None] * WINDOW + x) % (nw * WINDOW)  # (nw, 132)
    return _rows(y[:, None], x[None], h, w).reshape(nh * nw, -1)


def _cell_rows(nh: int, nw: int, cells: int, neighborhood: int) -> tuple[Tensor, Tensor]:
    """Cells seen around every window in a pooled map stored window by window: (W, n * n), and which are missing.

    The neighbourhood is centred at the top-left cell of the window, so it lies off-centre for 2 and 3 cells.
    """
    reach = torch.arange(neighborhood) - neighborhood // 2
    y = (torch.arange(nh)[:, None] * cells + reach).view(nh, 1, neighborhood, 1)
    x = (torch.arange(nw)[:, None] * cells + reach).view(1, nw, 1, neighborhood)
    missing = (y < 0) | (y >= nh * cells) | (x < 0) | (x >= nw * cells)
    window = (y // cells) * nw + x // cells
    rows = window * cells**2 + (y % cells) * cells + x % cells
    return rows.reshape(nh * nw, -1), missing.reshape(nh * nw, -1)
