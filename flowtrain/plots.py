"""Figures of densities and samples. The only module that knows matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.data import Density
from flowtrain.evaluate import in_batches
from flowtrain.flows import Flow

Image = np.ndarray[Any, Any]

COLORS = "magma"
PIXELS = 160  # a density's picture, per side


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
    low, high = (corner.tolist() for corner in density.window)
    extent = (low[0], high[0], low[1], high[1])
    x = torch.linspace(low[0], high[0], PIXELS, dtype=torch.float64)
    y = torch.linspace(low[1], high[1], PIXELS, dtype=torch.float64)
    grid = torch.cartesian_prod(x, y)
    exact = density.log_prob(grid).exp()
    model = in_batches(flow.log_prob, grid.to(flow.like), batch_size).double().cpu().exp()
    # A histogram of points shares the densities' scale: counts per area.
    panels = {
        "data": _histogram(data, extent),
        "exact density": exact.reshape(PIXELS, PIXELS).numpy(),
        "model density": model.reshape(PIXELS, PIXELS).numpy(),
        "samples": _histogram(samples, extent),
    }
    brightest = float(exact.max())
    height = 3.1 * (high[1] - low[1]) / (high[0] - low[0])
    figure = Figure(figsize=(13.4, height + 0.75), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(
            values.T, origin="lower", extent=extent, vmin=0, vmax=brightest, cmap=COLORS
        )
        axis.set_title(name, fontsize=10)
    figure.colorbar(image, ax=axes, label="density", shrink=0.9, pad=0.01)
    return figure


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
