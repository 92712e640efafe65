"""Figures of a continuous flow's way from base to data: paths, the field, an animation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.autograd.functional import jvp

from flowtrain.densities.density import Density
from flowtrain.evaluation.images import Image, pixels
from flowtrain.evaluation.panels import (
    Extent,
    draw_density,
    extent_of,
    grid_over,
    panels,
)
from flowtrain.flows.continuous import ContinuousFlow

PATHS = 100  # drawn whole
ARROWS = 18  # of a vector field, per side
FRAME = (9.6, 5.4)  # inches of an animation's frame at most: 16 to 9, as a screen
EDGES = (0.4, 0.6)  # inches that a panel's numbers and title take of them
MESH = 200  # of an animation's density, per side
WAY = LinearSegmentedColormap.from_list("way", ["tab:blue", "tab:purple", "tab:red"])
SIDE = 400  # of the grid on which that is shown
REACH = 4.5  # of the mesh in standard deviations of the base: 4e-5 of the peak is left beyond


def path_figure(flow: ContinuousFlow, density: Density | None, z: Tensor, *, title: str) -> Figure:
    """Draw the way from base to data: whole paths, then points and vector field at several t.

    Args:
        flow: the model, of points in the plane.
        density: what it learns; its window is drawn, or that of the points.
        z: base points, (n, 2); the first `PATHS` get their whole path drawn.
        title: a line above the panels.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> figure = path_figure(run.flow, run.density, run.flow.sample_base(100), title="run")
    >>> len(figure.axes)
    6
    """
    times = torch.linspace(0, 1, 41).to(z)
    ways = flow.trajectory(z, times)
    extent = extent_of(density, ways[-1])
    figure, (first, *others) = panels(extent, 2, 3, title)
    _draw_paths(first, ways[:, :PATHS].cpu().numpy())
    first.set_title("paths from base to data", fontsize=10)
    moments = [0, 10, 20, 30, 40]
    fastest = _fastest(ways.cpu().numpy())
    for axis, moment in zip(others, moments, strict=True):
        x, y = ways[moment].cpu().numpy().T
        axis.scatter(x, y, s=3, color="tab:orange", alpha=0.7, linewidths=0, rasterized=True)
        t = float(times[moment])
        _draw_field(axis, flow, extent, t, fastest, color="0.15", alpha=0.55)
        axis.set_title(f"points and field at t = {t:.2f}", fontsize=10)
    return figure


def field_figure(
    flow: ContinuousFlow, density: Density | None, z: Tensor, *, title: str, batch_size: int
) -> Figure:
    """Draw the vector field over the density of the moment, at six t from base to data.

    Args:
        flow: the model, of points in the plane.
        density: what it learns; its window is drawn, or that of the points.
        z: base points, (n, 2): their speeds set the length of the arrows.
        title: a line above the panels.
        batch_size: rows evaluated at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> z = run.flow.sample_base(50)
    >>> figure = field_figure(run.flow, run.density, z, title="run", batch_size=4096)
    >>> [axis.get_title() for axis in figure.axes][:2]
    ['t = 0.00', 't = 0.20']
    """
    times = torch.linspace(0, 1, 6).to(z)
    ways = flow.trajectory(z, times)
    extent, fastest = extent_of(density, ways[-1]), _fastest(ways.cpu().numpy())
    figure, axes = panels(extent, 2, 3, title)
    mesh, log_q = _moving_mesh(flow, times, batch_size)
    for axis, t, corners, values in zip(axes, times.tolist(), mesh, log_q, strict=True):
        density_now = _on_grid(corners, values, extent)
        draw_density(axis, density_now, extent, brightest=float(density_now.max()))
        _draw_field(axis, flow, extent, t, fastest, color="white", alpha=0.75)
        axis.set_title(f"t = {t:.2f}", fontsize=10)
    return figure


def animation(
    flow: ContinuousFlow,
    density: Density | None,
    z: Tensor,
    *,
    frames: int,
    batch_size: int,
    lines: int = 1080,
) -> Iterator[Image]:
    """Yield pictures of samples and density on their way from t = 0 to t = 1, and at rest there.

    Args:
        flow: the model, of points in the plane.
        density: what it learns; it sets the window and the color scale, or the points do.
        z: base points, (n, 2).
        frames: pictures from 0 to 1.
        batch_size: rows evaluated at a time.
        lines: pixels of a screen of 16 to 9 that the picture fits, from top to bottom; where the
            window is wide, the picture is as wide as the screen, and less high.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(ffjord_folder)
    >>> images = animation(run.flow, run.density, torch.zeros(8, 2), frames=2, batch_size=4096)
    >>> [image.shape[1:] for image in images]
    [(1920, 3), (1920, 3)]
    """
    times = torch.linspace(0, 1, frames).to(z)
    ways = flow.trajectory(z, times)
    extent = extent_of(density, ways[-1])
    mesh, log_q = _moving_mesh(flow, times, batch_size)
    brightest = float(np.exp(log_q[-1].max()))
    if density is not None:
        brightest = float(density.log_prob(grid_over(extent, MESH)).max().exp())
    ratio, dpi = (extent[3] - extent[2]) / (extent[1] - extent[0]), lines / FRAME[1]
    height = min(FRAME[1], (FRAME[0] / 2 - EDGES[0]) * ratio + EDGES[1])
    figure = Figure(figsize=(FRAME[0], height), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis in (left, right):
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    dots = left.scatter([], [], s=3, color="tab:orange", alpha=0.8, linewidths=0)
    draw_density(right, np.zeros((SIDE, SIDE)), extent, brightest)
    for t, points, corners, values in zip(times.tolist(), ways.cpu(), mesh, log_q, strict=True):
        dots.set_offsets(points.numpy())
        right.images[0].set_data(_on_grid(corners, values, extent))
        left.set_title(f"samples at t = {t:.2f}", fontsize=12)
        right.set_title(f"density at t = {t:.2f}", fontsize=12)
        yield pixels(figure, dpi=dpi).copy()


def _on_grid(corners: Image, log_q: Image, extent: Extent) -> Image:
    """Return the density on a grid over a window, (side, side), from that on a mesh.

    Its logarithm is interpolated: a density falls by orders between the points of a region that
    the flow has torn apart. Beyond the mesh it is 0.
    """
    from scipy.interpolate import LinearNDInterpolator  # 0.2 s that other figures need not wait

    between = LinearNDInterpolator(corners.reshape(-1, 2), log_q.ravel(), fill_value=-np.inf)
    density: Image = np.exp(between(grid_over(extent, SIDE).numpy()))
    return density.reshape(SIDE, SIDE).T


def _moving_mesh(flow: ContinuousFlow, times: Tensor, batch_size: int) -> tuple[Image, Image]:
    """Return a mesh that moves with the flow, (m, k, k, 2), and the log-density on it, (m, k, k).

    It is dense where the density is high, and sharper there than a grid that stands still.
    """
    z = grid_over((-REACH, REACH, -REACH, REACH), MESH).to(times)
    parts = [flow.evolution(rows, times) for rows in z.split(batch_size)]
    x, log_q = (torch.cat(each, 1).double().cpu() for each in zip(*parts, strict=True))
    shape = (len(times), MESH, MESH)
    return x.reshape(*shape, 2).numpy(), log_q.reshape(shape).numpy()


def _draw_paths(axis: Axes, ways: Image) -> None:
    """Draw whole paths, (m, n, 2), from blue to red, over the dots of their ends."""
    for index, color, name in ((0, "tab:blue", "base"), (-1, "tab:red", "data")):
        x, y = ways[index].T
        axis.scatter(x, y, s=9, color=color, linewidths=0, label=name, zorder=1)
    steps = np.stack([ways[:-1], ways[1:]], axis=2)  # (m - 1, n, 2 ends, 2)
    colors = np.broadcast_to(np.linspace(0, 1, len(steps))[:, None], steps.shape[:2])
    lines = LineCollection(
        list(steps.reshape(-1, 2, 2)), array=colors.ravel(), cmap=WAY, linewidths=0.9,
        zorder=2, capstyle="round",
    )  # fmt: skip
    axis.add_collection(lines)
    axis.legend(fontsize=7, loc="upper right", frameon=True, framealpha=0.8, handletextpad=0.1)


def _fastest(ways: Image) -> float:
    """Return the speed that nearly all points stay below on their ways, (m, n, 2)."""
    speeds = np.linalg.norm(np.diff(ways, axis=0), axis=-1) * (len(ways) - 1)
    return float(np.quantile(speeds, 0.98)) or 1.0


@torch.no_grad()
def _draw_field(
    axis: Axes, flow: ContinuousFlow, extent: Extent, t: float, fastest: float, **look: Any
) -> None:
    """Draw the velocity in data coordinates; the fastest points move by a cell of the arrows.

    Where there are no points the field may be far faster, and its arrows are cut.
    """
    grid = grid_over(extent, ARROWS).to(flow.device, flow.points_dtype)
    white, _ = flow.standardize.inverse(grid)
    velocity = flow.velocity(t, white)
    arrows = jvp(lambda z: flow.standardize(z)[0], white, velocity)[1].cpu().numpy()
    lengths = np.linalg.norm(arrows, axis=-1, keepdims=True)
    arrows = arrows * np.minimum(1.0, 1.5 * fastest / np.maximum(lengths, 1e-12))
    axis.quiver(
        *grid.cpu().numpy().T, *arrows.T, angles="xy", scale_units="xy", pivot="mid",
        scale=fastest * ARROWS / (extent[1] - extent[0]), width=0.0035, **look,
    )  # fmt: skip
