"""Figures of a flow on a line: its density beside the truth, its paths over time."""

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.densities.density import Density
from flowtrain.evaluation.panels import middle, write_title
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow

BINS = (16, 120)  # of a histogram, the fewest and the most
POINTS = 2000  # at which a density is drawn
PATHS = 100


def line_figure(
    flow: Flow,
    density: Density | None,
    data: Tensor,
    samples: Tensor,
    *,
    title: str,
    batch_size: int,
) -> Figure:
    """Draw the exact density and the model's as curves, data and samples as histograms.

    Args:
        flow: the model, of points on a line.
        density: what it learns; None where it is not known, and left out.
        data: points of the density, (n, 1); left out where there are none.
        samples: points of the model, (m, 1).
        title: a line above the panel.
        batch_size: rows evaluated at a time.

    >>> from flowtrain.densities import GaussianMixture
    >>> from flowtrain.flows import Standardize
    >>> from flowtrain.flows.linear import affine
    >>> normal = GaussianMixture(means=[[3.0]], covariances=[[[4.0]]], weights=[1.0])
    >>> flow = affine(Standardize(torch.zeros(1), torch.ones(1)), generator=torch.Generator())
    >>> x = normal.sample(100, torch.Generator().manual_seed(0))
    >>> figure = line_figure(flow, normal, x, flow.sample(100), title="demo", batch_size=1024)
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['data', 'samples', 'exact density', 'model density']
    """
    low, high = _view(density, data)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    write_title(figure, title)
    axis = figure.subplots()
    bins = int(np.clip(0.7 * len(samples) ** 0.5, *BINS))
    shown = {"data": (data, "stepfilled", "0.85")} if len(data) else {}
    shown["samples"] = (samples, "step", "tab:orange")
    for name, (points, kind, color) in shown.items():
        counts, edges = np.histogram(_column(points), bins=bins, range=(low, high))
        heights = counts / (len(points) * np.diff(edges))
        axis.stairs(heights, edges, fill=kind == "stepfilled", color=color, label=name)
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)[:, None]
    if density is not None:
        exact = density.log_prob(x).exp().numpy()
        axis.plot(x[:, 0].numpy(), exact, color="0.2", linewidth=2, label="exact density")
    like = torch.empty(0, dtype=flow.points_dtype, device=flow.device)
    model = in_batches(flow.log_prob, x.to(like), batch_size).double().cpu().exp().numpy()
    axis.plot(x[:, 0].numpy(), model, color="tab:blue", linewidth=1.2, label="model density")
    axis.set(xlim=(low, high), ylim=(0, None), xlabel="x", ylabel="density")
    axis.legend(fontsize=9, frameon=False)
    return figure


def line_paths_figure(
    flow: ContinuousFlow, density: Density | None, z: Tensor, *, title: str
) -> Figure:
    """Draw the ways of points over time, and where they begin and end.

    Args:
        flow: the model, of points on a line.
        density: what it learns; its window is drawn, or that of the points.
        z: base points, (n, 1); the first `PATHS` get their path drawn.
        title: a line above the panels.

    >>> from flowtrain.config.solver import Adaptive
    >>> from flowtrain.flows import Standardize, fields
    >>> from flowtrain.flows.continuous import ffjord
    >>> flow = ffjord(
    ...     Standardize(torch.zeros(1), torch.ones(1)), field=fields.ConcatSquash, width=8, depth=1,
    ...     activation="tanh", divergence="auto", probes=None, noise=None,
    ...     solver=Adaptive(name="dopri5", rtol=1e-5, atol=1e-5), generator=torch.Generator())
    >>> figure = line_paths_figure(flow, None, flow.sample_base(50), title="demo")
    >>> [axis.get_title() for axis in figure.axes]
    ['base', 'paths from base to data', 'data']
    """
    times = torch.linspace(0, 1, 41).to(z)
    ways = flow.trajectory(z, times)[..., 0].double().cpu().numpy()
    low, high = _view(density, torch.from_numpy(np.concatenate([ways[0], ways[-1]]))[:, None])
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    write_title(figure, title)
    base, middle_panel, data = figure.subplots(1, 3, sharey=True, width_ratios=[1, 4, 1])
    t = times.cpu().numpy()
    lines = [np.column_stack([t, way]) for way in ways[:, :PATHS].T]
    middle_panel.add_collection(LineCollection(lines, linewidths=0.7, alpha=0.7))
    middle_panel.set(xlim=(0, 1), ylim=(low, high), xlabel="t")
    middle_panel.set_title("paths from base to data", fontsize=10)
    for axis, ends, name in ((base, ways[0], "base"), (data, ways[-1], "data")):
        axis.hist(
            ends, bins=60, range=(low, high), density=True, orientation="horizontal",
            color="tab:orange", alpha=0.8,
        )  # fmt: skip
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
    base.set_ylabel("x")
    return figure


def _view(density: Density | None, points: Tensor) -> tuple[float, float]:
    if density is not None:
        low, high = density.window
        return float(low), float(high)
    edges = middle(points)
    return float(edges[0][0]), float(edges[1][0])


def _column(points: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return points[:, 0].double().cpu().numpy()
