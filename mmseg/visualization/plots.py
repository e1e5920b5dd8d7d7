"""Pictures of numbers, drawn by matplotlib: curves of trainings, and confusion matrices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour blindness tell apart; black last
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_DASHES = ("-", "--", ":", "-.")
_FEW = 30  # points of a curve that get marks of their own
_READABLE = 20  # classes whose shares are written into their cells
_LONGEST_NAME = 18


def plot_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    xlabels: Sequence[str] = (),
    log: bool = False,
    columns: int = 3,
    panel: tuple[float, float] = (5.2, 3.6),
) -> bytes:
    """A PNG with a panel for every number and a curve for every run, of the same colour in all panels.

    Args:
        panels: number -> run -> iterations and values.
        xlabels: what stands below the panels in place of "iteration".
        log: both axes are logarithmic.
        columns: panels beside each other, at most.
        panel: (width, height) of one in inches.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(panel[0] * columns, panel[1] * rows)
    lines = {}
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for name, (iterations, values) in curves.items():
            index = names.index(name)
            style = dict(color=_COLOURS[index % len(_COLOURS)], linestyle=_DASHES[index // len(_COLOURS) % 4])
            marker = "o" if len(values) <= _FEW else None
            [lines[name]] = axes.plot(iterations, values, marker=marker, markersize=3, linewidth=1.4, **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(xlabels[number - 1] if xlabels else "iteration", fontsize=8)
        if log:
            _logarithmic(axes, sorted({x for iterations, _ in curves.values() for x in iterations}))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    figure.legend([lines[n] for n in names], names, loc="outside lower center", ncols=min(3, len(names)), fontsize=8)
    return _png(figure)


def _logarithmic(axes: Axes, values: Sequence[int]) -> None:
    """Logarithmic axes, whose marks below are the `values` themselves."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, 2 * high)  # a nearly level curve looks level, and has numbers beside it
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def plot_confusion(confusion: np.ndarray, class_names: Sequence[str]) -> bytes:
    """A PNG of a confusion matrix (K, K), truth by prediction: which share of a class is predicted as which.

    Classes without labelled pixels and predictions are left out.
    """
    present = np.flatnonzero(confusion.any(axis=0) | confusion.any(axis=1))
    present = present if present.size else np.arange(len(confusion))
    counts = confusion[np.ix_(present, present)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(class_names[c]) for c in present]
    names = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names]
    side, few = len(present), len(present) <= _READABLE
    figure = _figure(*(2 * [max(4.5, 1.8 + (0.45 if few else 0.16) * side)]))
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if few else 5
    axes.set_xticks(range(side), names, rotation=90, fontsize=size)
    axes.set_yticks(range(side), names, fontsize=size)
    axes.set_xlabel("predicted as")
    axes.set_ylabel("class")
    if few:
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                ink = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=ink)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, format=lambda share, _: f"{100 * share:.0f} %")
    bar.ax.tick_params(labelsize=7)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    """A figure without a window: no display is needed, and nothing global changes."""
    from matplotlib.figure import Figure  # only where one is drawn: it takes a while

    return Figure((width, height), dpi=110, layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
