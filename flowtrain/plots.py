"""Figures of densities, samples and paths. The only module that knows matplotlib."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.data import Density
from flowtrain.evaluate import in_batches
from flowtrain.flows import ContinuousFlow, Flow

Image = np.ndarray[Any, Any]

COLORS = "magma"
PIXELS = 160  # a density's picture, per side
PATHS = 150  # drawn whole
ARROWS = 18  # of a vector field, per side
GIF_MILLISECONDS = 60  # a frame's


def density_figure(
    flow: Flow, density: Density, data: Tensor, samples: Tensor, *, title: str, batch_size: int
) -> Figure:
    """Draw data, exact density, model density and samples in one window, on one color scale.

    Args:
        flow: the model.
        density: the law it learns.
        data: points of the law, (n, 2).
        samples: points of the model, (n, 2).
        title: a line above the four panels.
        batch_size: rows evaluated at a time.
    """
    extent = _extent(density)
    grid = _grid(extent, PIXELS)
    exact = density.log_prob(grid).exp()
    model = in_batches(flow.log_prob, grid.to(flow.like), batch_size).double().cpu().exp()
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


def path_figure(flow: ContinuousFlow, density: Density, z: Tensor, *, title: str) -> Figure:
    """Draw the way from base to data: whole paths, then points and vector field at several t.

    Args:
        flow: the model.
        density: the law it learns; its window is drawn.
        z: base points, (n, 2); the first `PATHS` get their whole path drawn.
        title: a line above the panels.
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
    arrows = (flow.standardize.std * fields).cpu().numpy()
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


def animation(
    flow: ContinuousFlow, density: Density, z: Tensor, *, frames: int, batch_size: int
) -> Iterator[Image]:
    """Yield pictures of samples and density on their way from t = 0 to t = 1, and at rest there.

    Args:
        flow: the model.
        density: the law it learns; it sets the window and the color scale.
        z: base points, (n, 2).
        frames: pictures from 0 to 1.
        batch_size: rows evaluated at a time.
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


def pixels(figure: Figure, *, dpi: int = 100) -> Image:
    """Render a figure to (height, width, 3) bytes."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save_png(image: Image, path: Path) -> None:
    """Write rendered pixels as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)


def save_gif(images: Iterable[Image], path: Path) -> None:
    """Write rendered pixels as an endless GIF that rests at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (PIL.Image.fromarray(image).quantize(128) for image in images)
    durations = [GIF_MILLISECONDS] * len(rest) + [20 * GIF_MILLISECONDS]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
