"""Figures of what a flow has learned: densities beside the truth, pairs of columns."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.evaluation.images import Image
from flowtrain.evaluation.panels import (
    density_on_grid,
    draw_density,
    extent_of,
    histogram,
    middle,
    model_density,
    panels,
    write_title,
)
from flowtrain.flows.flow import Flow
from flowtrain.text import for_figure

PIXELS = 128  # a density's picture in a training, per side
MARGINALS = 5  # columns of a table drawn against one another
DOTS = 2000  # of a scatter plot: more would hide one another
BINS = (8, 60)  # of a column's histogram, the fewest and the most


def density_figure(
    flow: Flow,
    density: Density | None,
    data: Tensor,
    samples: Tensor,
    *,
    title: str,
    batch_size: int,
    side: int = PIXELS,
) -> Figure:
    """Draw data, exact density, model density and samples in one window, on one color scale.

    What is not there is left out: the data of a target without points, a density of a table.

    Args:
        flow: the model, of points in the plane.
        density: what it learns; None where it is not known, and left out.
        data: points of the density, (n, 2).
        samples: points of the model, (m, 2).
        title: a line above the panels.
        batch_size: rows evaluated at a time.
        side: points at which the densities are evaluated, per axis.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> x, samples = run.splits.test.x, run.flow.sample(64)
    >>> figure = density_figure(run.flow, run.density, x, samples, title="run", batch_size=4096)
    >>> [axis.get_title() for axis in figure.axes[:4]]
    ['data', 'exact density', 'model density', 'samples']
    """
    extent = extent_of(density, data)
    shown = {"data": histogram(data, extent)} if len(data) else {}  # on the scale of a density
    if density is not None:
        shown["exact density"] = _exact(density, extent, side)
    shown["model density"] = model_density(flow, extent, side, batch_size)
    shown["samples"] = histogram(samples, extent)
    truth = shown["data" if density is None else "exact density"]
    rows, columns = (2, 2) if len(shown) == 4 else (1, 3)
    figure, axes = panels(extent, rows, columns, title, bar=0.9)
    for axis, (name, values) in zip(axes, shown.items(), strict=True):
        draw_density(axis, values, extent, float(truth.max()))
        axis.set_title(name, fontsize=10)
    figure.colorbar(axes[0].images[0], ax=axes, label="density", shrink=0.9, pad=0.02)
    return figure


def marginals_figure(
    data: Tensor,
    samples: Tensor,
    columns: Sequence[str],
    *,
    title: str,
    shown: Sequence[int] | None = None,
) -> Figure:
    """Draw data and samples in pairs of columns, a histogram of each column on the diagonal.

    Args:
        data: points, (n, d); where there are none, samples are drawn alone.
        samples: points of the model, (m, d).
        columns: d names.
        title: a line above the panels.
        shown: positions of the columns that are drawn; by default all of them, or of more than
            `MARGINALS` some, evenly spaced.

    >>> x = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0))
    >>> figure = marginals_figure(x[0], x[1], ["a", "b", "c"], title="demo")
    >>> len(figure.axes)  # 3 x 3 panels
    9
    """
    dim = len(columns)
    if shown is None:
        side = min(dim, MARGINALS)
        shown = [(2 * place + 1) * dim // (2 * side) for place in range(side)]
    side, names = len(shown), [for_figure(columns[place]) for place in shown]
    if side < dim:
        title += f"; {side} of {dim} columns"
    sets = {
        f"data, {len(data):,} rows": ("tab:blue", _chosen(data, shown)),
        f"samples, {len(samples):,}": ("tab:orange", _chosen(samples, shown)),
    }
    if not len(data):
        data, sets = samples, dict([sets.popitem()])
    size = {1: 4.5, 2: 2.8}.get(side, 2.0)
    figure = Figure(figsize=(size * side + 0.7, size * side + 0.8), layout="constrained")
    write_title(figure, title)
    axes = figure.subplots(side, side, squeeze=False, sharex="col")
    low, high = middle(data[:, list(shown)])
    for place, axis in enumerate(axes.flat):
        row, column = divmod(place, side)
        axis.tick_params(labelsize=7, labelleft=column == 0 and row > 0)
        axis.set_xlim(low[column], high[column])
        if row < column:
            axis.set_axis_off()
        elif row == column:
            _draw_histograms(axis, sets, column, (float(low[column]), float(high[column])))
        else:
            for color, points in reversed(sets.values()):  # the data over the samples
                axis.scatter(
                    points[:DOTS, column], points[:DOTS, row],
                    s=float(np.clip(3000 / min(len(points), DOTS), 2, 9)),
                    color=color, alpha=0.6, linewidths=0, rasterized=True,
                )  # fmt: skip
            axis.set_ylim(low[row], high[row])
        if row == side - 1:
            axis.set_xlabel(names[column], fontsize=_fitting(names[column], size))
        if column == 0 and row > 0:
            axis.set_ylabel(names[row], fontsize=_fitting(names[row], size))
    first, *others = axes.flat
    handles, labels = first.get_legend_handles_labels()
    # Above the diagonal there is room.
    home = others[0] if others else first
    home.legend(handles, labels, fontsize=9, frameon=False, loc="center left" if others else "best")
    return figure


def _exact(density: Density, extent: tuple[float, float, float, float], side: int) -> Image:
    like = torch.empty(0, dtype=torch.float64)
    return density_on_grid(density.log_prob, extent, side, like, side**2)


def _chosen(points: Tensor, columns: Sequence[int]) -> Image:
    chosen: Image = points[:, list(columns)].double().cpu().numpy()
    return chosen


def _draw_histograms(
    axis: Axes, sets: dict[str, tuple[str, Image]], column: int, view: tuple[float, float]
) -> None:
    """Draw a column of data and of samples in the same bins, as many as the data can fill."""
    _, values = next(iter(sets.values()))
    bins = np.linspace(*view, int(np.clip(len(values) ** 0.5, *BINS)) + 1).tolist()
    for name, (color, points) in sets.items():
        share = np.full(len(points), 1 / (len(points) * (bins[1] - bins[0])))
        axis.hist(points[:, column], bins=bins, color=color, alpha=0.55, label=name, weights=share)
    axis.set_yticks([])


def _fitting(name: str, inches: float) -> float:
    """Return the size in points at which a name is no longer than its panel."""
    return float(np.clip(inches * 66 / (0.6 * len(name)), 4.5, 9))
