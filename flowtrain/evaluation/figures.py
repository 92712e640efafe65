"""Figures of one run: densities, samples, paths, marginals, and an animation."""

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.autograd.functional import jvp

from flowtrain.batching import in_batches
from flowtrain.densities.density import Density
from flowtrain.evaluation.images import Image, pixels
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow

COLORS = "magma"
PIXELS = 128  # a density's picture, per side
PATHS = 150  # drawn whole
ARROWS = 18  # of a vector field, per side
MARGINALS = 5  # columns of a table drawn against one another


def density_figure(
    flow: Flow, density: Density, data: Tensor, samples: Tensor, *, title: str, batch_size: int
) -> Figure:
    """Draw data, exact density, model density and samples in one window, on one color scale.

    Args:
        flow: the model.
        density: what it learns.
        data: points of the density, (n, 2).
        samples: points of the model, (n, 2).
        title: a line above the four panels.
        batch_size: rows evaluated at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> x, samples = run.splits.test.x, run.flow.sample(64)
    >>> figure = density_figure(run.flow, run.density, x, samples, title="run", batch_size=4096)
    >>> [axis.get_title() for axis in figure.axes[:4]]
    ['data', 'exact density', 'model density', 'samples']
    """
    extent = _extent(density)
    grid = _grid(extent, PIXELS)
    exact = density.log_prob(grid).exp()
    model = (
        in_batches(flow.log_prob, grid.to(flow.device, flow.dtype), batch_size).double().cpu().exp()
    )
    # A histogram of points shares the densities' scale: counts per area.
    panels = {
        "data": _histogram(data, extent),
        "exact density": exact.reshape(PIXELS, PIXELS).numpy(),
        "model density": model.reshape(PIXELS, PIXELS).numpy(),
        "samples": _histogram(samples, extent),
    }
    figure, axes = _panels(extent, 2, 2, title)
    brightest = float(exact.max())
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(
            values.T, origin="lower", extent=extent, vmin=0, vmax=brightest, cmap=COLORS
        )
        axis.set_title(name, fontsize=10)
    figure.colorbar(image, ax=axes, label="density", shrink=0.9, pad=0.02)
    return figure


def marginals_figure(
    data: Tensor, samples: Tensor, columns: Sequence[str], *, title: str
) -> Figure:
    """Draw data and samples in pairs of columns, a histogram of each column on the diagonal.

    Args:
        data: points, (n, d).
        samples: points of the model, (m, d).
        columns: d names; of more than `MARGINALS` some are drawn, evenly spaced.
        title: a line above the panels.

    >>> x = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0))
    >>> figure = marginals_figure(x[0], x[1], ["a", "b", "c"], title="demo")
    >>> len(figure.axes)  # 3 x 3 panels
    9
    """
    dim = len(columns)
    side = min(dim, MARGINALS)
    shown = [(2 * place + 1) * dim // (2 * side) for place in range(side)]
    x, y = (points[:, shown].double().cpu().numpy() for points in (data, samples))
    figure = Figure(figsize=(2.0 * side + 1.5, 2.0 * side + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(side, side, squeeze=False)
    sets = (("data", "tab:blue", x), ("samples", "tab:orange", y))
    for row in range(side):
        for column in range(side):
            axis = axes[row, column]
            # The data set the view: a few wild samples must not shrink them to a dot.
            low, high = np.quantile(x[:, column], [0.001, 0.999])
            margin = 0.15 * (high - low)
            axis.set_xlim(low - margin, high + margin)
            if row == column:
                bins = np.linspace(low - margin, high + margin, 41)
                for name, color, points in sets:
                    axis.hist(
                        points[:, row], bins=bins, color=color, alpha=0.6, label=name,
                        weights=np.full(len(points), 1 / (len(points) * (bins[1] - bins[0]))),
                    )  # fmt: skip
                axis.set_yticks([])
            elif row > column:
                for _, color, points in sets:
                    axis.scatter(
                        points[:2000, column], points[:2000, row],
                        s=2, color=color, alpha=0.5, linewidths=0,
                    )  # fmt: skip
                bottom, top = np.quantile(x[:, row], [0.001, 0.999])
                axis.set_ylim(bottom - 0.15 * (top - bottom), top + 0.15 * (top - bottom))
            else:
                axis.set_axis_off()
            if row == side - 1:
                axis.set_xlabel(columns[shown[column]], fontsize=9)
            if column == 0 and row > 0:
                axis.set_ylabel(columns[shown[row]], fontsize=9)
            axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=8, loc="upper right")
    return figure


def _in_data(flow: ContinuousFlow, z: Tensor, velocity: Tensor) -> Tensor:
    """Return a velocity at whitened points, (n, d), in data coordinates."""
    pushed: Tensor = jvp(lambda at: flow.standardize(at)[0], z, velocity)[1]
    return pushed


def path_figure(flow: ContinuousFlow, density: Density, z: Tensor, *, title: str) -> Figure:
    """Draw the way from base to data: whole paths, then points and vector field at several t.

    Args:
        flow: the model.
        density: what it learns; its window is drawn.
        z: base points, (n, 2); the first `PATHS` get their whole path drawn.
        title: a line above the panels.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> figure = path_figure(run.flow, run.density, run.flow.sample_base(100), title="run")
    >>> len(figure.axes)
    6
    """
    times = torch.linspace(0, 1, 41).to(z)
    paths = flow.trajectory(z, times).cpu().numpy()
    extent = _extent(density)
    moments = [0, 10, 20, 30, 40]
    figure, axes = _panels(extent, 2, 3, title)
    x, y = np.moveaxis(paths[:, :PATHS], -1, 0)
    axes[0].plot(x, y, color="0.6", linewidth=0.4)
    for index, color in ((0, "tab:blue"), (-1, "tab:red")):
        axes[0].scatter(x[index], y[index], s=3, color=color, zorder=2)
    axes[0].set_title("paths from base (blue) to data (red)", fontsize=10)

    grid = _grid(extent, ARROWS).to(z)
    white, _ = flow.standardize.inverse(grid)
    with torch.no_grad():
        fields = torch.stack([flow.velocity(times[moment], white) for moment in moments])
    arrows = torch.stack([_in_data(flow, white, field) for field in fields]).cpu().numpy()
    # One scale for all moments: the fastest points move by a grid cell; where there are no points
    # the field may be far faster, and its arrows are cut.
    speeds = np.linalg.norm(np.diff(paths, axis=0), axis=-1) / float(times[1])
    fastest = float(np.quantile(speeds, 0.98)) or 1.0
    lengths = np.linalg.norm(arrows, axis=-1, keepdims=True)
    arrows = arrows * np.minimum(1.0, 1.5 * fastest / np.maximum(lengths, 1e-12))
    scale = fastest * ARROWS / (extent[1] - extent[0])
    at_x, at_y = grid.cpu().numpy().T
    for axis, moment, field in zip(axes[1:], moments, arrows, strict=True):
        x, y = paths[moment].T
        axis.scatter(x, y, s=1, color="tab:orange", alpha=0.4, linewidths=0)
        axis.quiver(
            at_x, at_y, *field.T,
            angles="xy", scale_units="xy", scale=scale, width=0.004, color="0.2",
        )  # fmt: skip
        axis.set_title(f"points and field at t = {times[moment]:.2f}", fontsize=10)
    for axis in axes:
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    return figure


def gallery_figure(
    rows: list[tuple[str, Density, Tensor, dict[str, Flow]]], *, batch_size: int
) -> Figure:
    """Draw a row for each density: its data, its exact density, and that of each flow.

    Args:
        rows: a name, the density, points of it, (n, 2), and flows that learned it, by name; the
            same names in every row.
        batch_size: rows evaluated at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> row = ("pinwheel", run.density, run.splits.test.x, {"RealNVP": run.flow})
    >>> figure = gallery_figure([row], batch_size=4096)
    >>> [axis.get_title() for axis in figure.axes]
    ['data', 'exact', 'RealNVP']
    """
    names = ["data", "exact", *rows[0][3]]
    figure = Figure(figsize=(2.2 * len(names), 2.2 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for line, (name, density, data, flows) in zip(axes, rows, strict=True):
        extent = _extent(density)
        grid = _grid(extent, PIXELS)
        exact = density.log_prob(grid).exp()
        images = [_histogram(data, extent), exact.reshape(PIXELS, PIXELS).numpy()]
        for flow in flows.values():
            model = (
                in_batches(flow.log_prob, grid.to(flow.device, flow.dtype), batch_size)
                .double()
                .exp()
            )
            images.append(model.reshape(PIXELS, PIXELS).numpy())
        for axis, image in zip(line, images, strict=True):
            axis.imshow(
                image.T, origin="lower", extent=extent, vmin=0, vmax=float(exact.max()),
                cmap=COLORS, aspect="auto",
            )  # fmt: skip
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.replace("_", " "), fontsize=13)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(textwrap.fill(name, 16), fontsize=13)
    return figure


def animation(
    flow: ContinuousFlow, density: Density, z: Tensor, *, frames: int, batch_size: int
) -> Iterator[Image]:
    """Yield pictures of samples and density on their way from t = 0 to t = 1, and at rest there.

    Args:
        flow: the model.
        density: what it learns; it sets the window and the color scale.
        z: base points, (n, 2).
        frames: pictures from 0 to 1.
        batch_size: rows evaluated at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> images = animation(run.flow, run.density, torch.zeros(8, 2), frames=2, batch_size=4096)
    >>> [image.shape[-1] for image in images]  # red, green, blue
    [3, 3]
    """
    extent = _extent(density)
    side = PIXELS // 2
    grid = _grid(extent, side)
    brightest = float(density.log_prob(grid).max().exp())
    times = torch.linspace(0, 1, frames).to(z)
    paths = flow.trajectory(z, times).cpu().numpy()
    for t, points in zip(times.tolist(), paths, strict=True):
        x, y = points.T
        log_q = in_batches(partial(flow.log_prob_at, t), grid.to(z), batch_size).double().cpu()
        figure, axes = _panels(extent, 1, 2, f"t = {t:.2f}")
        axes[0].scatter(x, y, s=1, color="tab:orange", linewidths=0)
        axes[1].imshow(
            log_q.exp().reshape(side, side).T.numpy(),
            origin="lower", extent=extent, vmin=0, vmax=brightest, cmap=COLORS,
        )  # fmt: skip
        for axis, name in zip(axes, ("samples", "density"), strict=True):
            axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
            axis.set_title(name, fontsize=10)
        yield pixels(figure, dpi=80)


def _extent(density: Density) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = (corner.tolist() for corner in density.window)
    return x0, x1, y0, y1


def _grid(extent: tuple[float, float, float, float], side: int) -> Tensor:
    x, y = (
        torch.linspace(low, high, side, dtype=torch.float64)
        for low, high in (extent[:2], extent[2:])
    )
    return torch.cartesian_prod(x, y)


def _panels(
    extent: tuple[float, float, float, float], rows: int, columns: int, title: str
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels in the shape of a window."""
    height = 3.1 * (extent[3] - extent[2]) / (extent[1] - extent[0])
    figure = Figure(
        figsize=(3.3 * columns + 0.5, (height + 0.3) * rows + 0.4), layout="constrained"
    )
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    return figure, list(axes.flat)


def _histogram(points: Tensor, extent: tuple[float, float, float, float]) -> Image:
    """Count points per area, (bins, bins), on the scale of a density."""
    bins = PIXELS // 2  # coarser than the densities, so that a bin holds enough points
    x, y = points.double().cpu().numpy().T
    counts, xs, ys = np.histogram2d(x, y, bins=bins, range=(extent[:2], extent[2:]))
    density: Image = counts / (len(points) * (xs[1] - xs[0]) * (ys[1] - ys[0]))
    return density
