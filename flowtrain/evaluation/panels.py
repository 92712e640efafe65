"""What figures share: a window of the plane, grids and histograms in it, panels, titles, axes."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.densities.density import Density
from flowtrain.evaluation.images import Image
from flowtrain.flows.flow import Flow

COLORS = "magma"  # of densities
Extent = tuple[float, float, float, float]  # left, right, bottom, top


def extent_of(density: Density | None, points: Tensor) -> Extent:
    """Return the window of the plane that is drawn: a density's own, or all but outliers of points.

    >>> extent_of(None, torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    (-0.1, 1.1, -0.2, 2.2)
    """
    if density is None:
        low, high = middle(points)
    else:
        low, high = (corner.numpy() for corner in density.window)
    (x0, y0), (x1, y1) = low.tolist(), high.tolist()
    return x0, x1, y0, y1


def middle(points: Tensor) -> tuple[Image, Image]:
    """Return the edges of a view that a few wild points do not shrink to a dot, each (d,).

    >>> low, high = middle(torch.linspace(0, 1, 11)[:, None])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([-0.1], [1.1])
    """
    low, high = np.quantile(points.double().cpu().numpy(), [0.005, 0.995], axis=0, method="nearest")
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def density_on_grid(
    log_prob: Callable[[Tensor], Tensor], extent: Extent, side: int, like: Tensor, batch_size: int
) -> Image:
    """Return exp(log_prob) on a grid over a window, (side, side), a row for each y.

    Args:
        log_prob: (n, 2) -> (n,).
        extent: the window.
        side: points of the grid, per axis.
        like: points of the device and the dtype that log_prob takes.
        batch_size: rows at a time.

    >>> def log_prob(x):
    ...     return x[:, 0] + 10 * x[:, 1]
    >>> density_on_grid(log_prob, (0, 1, 0, 1), 2, torch.zeros(1), 4).round().tolist()
    [[1.0, 3.0], [22026.0, 59874.0]]
    """
    grid = grid_over(extent, side).to(like)
    density: Image = in_batches(log_prob, grid, batch_size).double().cpu().exp().numpy()
    return density.reshape(side, side).T


def grid_over(extent: Extent, side: int) -> Tensor:
    """Return the points of a grid over a window, (side², 2), in float64, by x and then by y.

    >>> grid_over((0, 1, 0, 3), 2).tolist()
    [[0.0, 0.0], [0.0, 3.0], [1.0, 0.0], [1.0, 3.0]]
    """
    x, y = (
        torch.linspace(low, high, side, dtype=torch.float64)
        for low, high in (extent[:2], extent[2:])
    )
    return torch.cartesian_prod(x, y)


def histogram(points: Tensor, extent: Extent) -> Image:
    """Count points per area on the scale of a density, (bins, bins), a row for each y.

    There are as many bins as the points can fill.

    >>> counts = histogram(torch.rand(1000, 2), (0, 1, 0, 1))
    >>> counts.shape, counts.mean().round(6)
    ((24, 24), np.float64(1.0))
    """
    x, y = points.double().cpu().numpy().T
    bins = int(np.clip(0.7 * len(points) ** 0.5, 24, 128))
    counts, ys, xs = np.histogram2d(y, x, bins=bins, range=(extent[2:], extent[:2]))
    density: Image = counts / (len(points) * (xs[1] - xs[0]) * (ys[1] - ys[0]))
    return density


def draw_density(axis: Axes, values: Image, extent: Extent, brightest: float) -> None:
    """Draw a density, (rows, columns), black at zero and brightest at a given value.

    >>> axis = Figure().subplots()
    >>> draw_density(axis, np.ones((2, 2)), (0, 1, 0, 1), brightest=2.0)
    >>> axis.images[0].get_clim()
    (0.0, 2.0)
    """
    axis.imshow(
        values, origin="lower", extent=extent, vmin=0, vmax=brightest, cmap=COLORS,
        aspect=axis.get_aspect(),  # imshow would set its own
    )  # fmt: skip


def panels(
    extent: Extent, rows: int, columns: int, title: str, *, bar: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels in the shape of a window.

    Args:
        extent: the window.
        rows, columns: of panels.
        title: a line above them.
        bar: inches that a color bar takes at their right.

    >>> figure, axes = panels((0, 1, 0, 1), 2, 3, "a title")
    >>> len(axes), figure.get_suptitle()
    (6, 'a title')
    """
    # A window far from square is stretched, so that no panel becomes a thread.
    ratio = float(np.clip((extent[3] - extent[2]) / (extent[1] - extent[0]), 0.5, 2.0))
    width = 3.3 if ratio <= 1 else 3.3 / ratio**0.5
    figure = Figure(
        figsize=(width * columns + 0.3 + bar, (width * ratio + 0.22) * rows + 0.5),
        layout="constrained",
    )
    write_title(figure, title)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat:
        axis.set(xlim=extent[:2], ylim=extent[2:], box_aspect=ratio, aspect="auto")
        axis.tick_params(labelsize=8)
    return figure, list(axes.flat)


def write_title(figure: Figure, title: str) -> None:
    """Write a title over a figure, folded where the figure is too narrow for it.

    >>> figure = Figure(figsize=(2, 2))
    >>> write_title(figure, "a title of many more words")
    >>> figure.get_suptitle()
    'a title of many more\\nwords'
    """
    letters = int(figure.get_figwidth() * 72 / (10 * 0.58))
    figure.suptitle(textwrap.fill(title, max(letters, 12)), fontsize=10)


def model_density(flow: Flow, extent: Extent, side: int, batch_size: int) -> Image:
    """Return a flow's density on a grid over a window, (side, side), a row for each y.

    >>> from flowtrain import load
    >>> model_density(load(run_folder), (-1, 1, -1, 1), 4, batch_size=16).shape
    (4, 4)
    """
    like = torch.empty(0, dtype=flow.points_dtype, device=flow.device)
    return density_on_grid(flow.log_prob, extent, side, like, batch_size)


def scale_axis(
    axes: Axes, side: str, values: Sequence[float] | Image, *, factor: float = 10.0
) -> None:
    """Make the x or y axis logarithmic where its values are positive and far apart.

    Its numbers are written in full, few enough to stand apart.

    Args:
        axes: to scale.
        side: "x" or "y".
        values: that are shown.
        factor: between the least and the largest, beyond which they are far apart; from 5 on
            there are two numbers at least.

    >>> axis = Figure().subplots()
    >>> scale_axis(axis, "y", [0.01, 1.0])
    >>> axis.get_yscale()
    'log'
    """
    axis = axes.xaxis if side == "x" else axes.yaxis
    seen = finite(values)
    if len(seen) and 0 < factor * (low := seen.min()) < (high := seen.max()):
        axes.set(**{f"{side}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(brief))


def fit_axis(
    axes: Axes,
    curves: Sequence[Sequence[float] | Image],
    *,
    floors: Sequence[float] | Image = (),
    narrowest: float = 0.0,
    rising: bool = False,
) -> None:
    """Fit the y axis to curves, whose first values can be so far off that they flatten the rest.

    A curve is shown whole where half of its values take a sixth of the height; else they are
    enlarged to take a third, and what lies farther off is left out. So may be the highest quarter
    of five curves or more. A logarithmic axis shows everything.

    Args:
        axes: whose scale, linear or logarithmic, is chosen.
        curves: the values of each.
        floors: values that are shown too, and that no curve is expected to pass.
        narrowest: range of the axis, the error of what is drawn: noise should not fill it.
        rising: whether the curves come from below.

    >>> axes = Figure().subplots()
    >>> fit_axis(axes, [[9e9, 3.0, 2.5]], floors=[2.0])
    >>> [round(float(edge), 2) for edge in axes.get_ylim()]
    [1.76, 5.24]
    """
    sign = -1.0 if rising else 1.0
    edge = sign * finite(floors)
    shown = [sign * seen for values in curves if len(seen := finite(values))]
    if not shown or axes.get_yscale() == "log":
        return
    lows = [float(min([*seen, *edge])) for seen in shown]
    highs = []
    for low, seen in zip(lows, shown, strict=True):
        half, whole = np.quantile(seen, 0.5, method="higher") - low, seen.max() - low
        highs.append(low + (whole if whole <= 6 * half else 3 * half))
    low, high = min(lows), float(max([np.quantile(highs, 0.75, method="higher"), *edge]))
    lacking = max(0.0, narrowest - (high - low))
    margin = lacking / 2 + (0.08 * (high - low + lacking) or 0.1)
    axes.set_ylim(*sorted([sign * (low - margin), sign * (high + margin)]))


def brief(value: float, _: object = None) -> str:
    """Write a number on an axis.

    >>> brief(0.05), brief(2_000), brief(50_000), brief(1_500_000), brief(2e30)
    ('0.05', '2,000', '50k', '1.5M', '2e+30')
    """
    if abs(value) >= 1e9:
        return f"{value:.0e}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.6g}M"
    return f"{value / 1e3:,.6g}k" if abs(value) >= 1e4 else f"{value:,.6g}"


def finite(values: Sequence[float] | Image) -> Image:
    """Return the numbers that can be drawn, (k,).

    >>> finite([1.0, float("nan"), float("inf")]).tolist()
    [1.0]
    """
    every = np.asarray(values, dtype=float)
    numbers: Image = every[np.isfinite(every)]
    return numbers
