"""Figures of densities, samples and paths. The only module that knows matplotlib."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from flowtrain.data import Density
from flowtrain.errors import UserError
from flowtrain.evaluate import in_batches
from flowtrain.flows import ContinuousFlow, Flow

Image = np.ndarray[Any, Any]

COLORS = "magma"
PIXELS = 128  # a density's picture, per side
PATHS = 150  # drawn whole
ARROWS = 18  # of a vector field, per side
MARGINALS = 5  # columns of a table drawn against one another
GIF_MILLISECONDS = 60  # a frame's
ENTROPY = "entropy of the data"  # no NLL can be lower


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


def marginals_figure(
    data: Tensor, samples: Tensor, columns: Sequence[str], *, title: str
) -> Figure:
    """Draw data and samples in pairs of columns, a histogram of each column on the diagonal.

    Args:
        data: points, (n, d).
        samples: points of the model, (m, d).
        columns: d names; of more than `MARGINALS` some are drawn, evenly spaced.
        title: a line above the panels.
    """
    dim = len(columns)
    side = min(dim, MARGINALS)
    shown = [(2 * place + 1) * dim // (2 * side) for place in range(side)]
    x, y = (points[:, shown].double().cpu().numpy() for points in (data, samples))
    figure = Figure(figsize=(2.0 * side + 1.5, 2.0 * side + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(side, side, squeeze=False)
    pools = (("data", "tab:blue", x), ("samples", "tab:orange", y))
    for row in range(side):
        for column in range(side):
            axis = axes[row, column]
            # The data set the view: a few wild samples must not shrink them to a dot.
            low, high = np.quantile(x[:, column], [0.001, 0.999])
            margin = 0.15 * (high - low)
            axis.set_xlim(low - margin, high + margin)
            if row == column:
                bins = np.linspace(low - margin, high + margin, 41)
                for name, color, points in pools:
                    axis.hist(
                        points[:, row], bins=bins, color=color, alpha=0.6, label=name,
                        weights=np.full(len(points), 1 / (len(points) * (bins[1] - bins[0]))),
                    )  # fmt: skip
                axis.set_yticks([])
            elif row > column:
                for _, color, points in pools:
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


def gallery_figure(
    rows: list[tuple[str, Density, Tensor, dict[str, Flow]]], *, batch_size: int
) -> Figure:
    """Draw a row for each density: its data, its exact density, and that of each flow.

    Args:
        rows: a name, the law, points of it, (n, 2), and flows that learned it, by name; the same
            names in every row.
        batch_size: rows evaluated at a time.
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
            model = in_batches(flow.log_prob, grid.to(flow.like), batch_size).double().exp()
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


def save_mp4(images: Iterable[Image], path: Path) -> None:
    """Write rendered pixels as an H.264 video, as fast as the GIF, that rests at its end.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("MP4 needs PyAV: pip install 'flowtrain[mp4]', or write a .gif") from None
    frames = list(images)
    frames += [frames[-1]] * 20
    height, width = (side - side % 2 for side in frames[0].shape[:2])  # its colors go by 2 x 2
    with av.open(str(path), "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=Fraction(1000, GIF_MILLISECONDS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            pixels = np.ascontiguousarray(frame[:height, :width])
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())


@dataclass(frozen=True)
class Curves:
    """What a picture of several runs shows of one.

    Attributes:
        group: names the color.
        data: names the row of panels.
        steps: of the evaluations, (m,).
        seconds: of training at the evaluations, (m,).
        nll: on the validation points in nats, (m,).
        kl: on the validation points in nats, (m,); None where the law is not known.
        entropy: of the law in nats, if it is known.
        parameters: trained weights.
        final: KL on the test points in nats, NLL where the law is not known.
    """

    group: str
    data: str
    steps: Sequence[float]
    seconds: Sequence[float]
    nll: Sequence[float]
    kl: Sequence[float] | None
    entropy: float | None
    parameters: int
    final: float


def comparison_figure(runs: Sequence[Curves]) -> Figure:
    """Draw runs over steps, over time and over parameters: three panels for each data set."""
    data_sets = sorted({run.data for run in runs})
    groups = list(dict.fromkeys(run.group for run in runs))
    spread = colormaps["tab10"].colors if len(groups) <= 10 else None  # type: ignore[attr-defined]
    colors = spread or colormaps["turbo"](np.linspace(0.05, 0.95, len(groups)))
    figure = Figure(figsize=(12, 3.3 * len(data_sets) + 0.6), layout="constrained")
    rows = figure.subplots(len(data_sets), 3, squeeze=False)
    for axes, data in zip(rows, data_sets, strict=True):
        those = [run for run in runs if run.data == data]
        _comparison_row(axes, those, dict(zip(groups, colors, strict=False)))
        axes[0].set_title(f"{data}: NLL over steps", fontsize=10)
    handles: dict[str, Any] = {}
    for axis in rows[:, 0]:
        drawn, names = axis.get_legend_handles_labels()
        handles |= dict(zip(names, drawn, strict=True))
    labels = [label for label in (*groups, ENTROPY) if label in handles]
    figure.legend(
        [handles[label] for label in labels], labels, loc="outside lower center", fontsize=9,
        ncols=max(1, min(len(labels), 150 // max(map(len, labels)))), frameon=False,
    )  # fmt: skip
    return figure


def _comparison_row(axes: Sequence[Axes], runs: Sequence[Curves], colors: dict[str, Any]) -> None:
    """Draw the panels of one data set."""
    by_steps, by_time, by_parameters = axes
    name = "KL" if all(run.kl is not None for run in runs) else "NLL"
    gaps: list[float] = []
    for run in runs:
        style: dict[str, Any] = {"color": colors[run.group], "linewidth": 1.1, "alpha": 0.8}
        by_steps.plot(run.steps, run.nll, label=run.group, **style)
        gap = run.nll if run.kl is None or name == "NLL" else run.kl
        by_time.plot(run.seconds, gap, **style)
        by_parameters.plot(run.parameters, run.final, marker="o", markersize=6, **style)
        gaps += gap
    floors = sorted({run.entropy for run in runs if run.entropy is not None})
    for floor in floors:
        by_steps.axhline(floor, color="0.4", linewidth=1, linestyle="--", label=ENTROPY)
    # The first evaluations of a flow can be far off: they would flatten all that follows.
    seen = _finite([nll for run in runs for nll in run.nll])
    if len(seen):
        low, high = min([seen.min(), *floors]), float(np.quantile(seen, 0.75))
        margin = 0.08 * (high - low) or 0.1
        by_steps.set(ylim=(low - margin, high + margin))
    _scale(by_time, "y", gaps)
    _scale(by_parameters, "y", [run.final for run in runs])
    _scale(by_parameters, "x", [run.parameters for run in runs])
    by_steps.set(xlabel="step", ylabel="validation NLL (nats)")
    by_time.set(xlabel="seconds of training", ylabel=f"validation {name} (nats)")
    by_parameters.set(xlabel="parameters", ylabel=f"test {name} (nats)")
    by_time.set_title(f"{name} against time", fontsize=10)
    by_parameters.set_title(f"{name} against parameters", fontsize=10)
    for axis in axes:
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)


def _scale(axes: Axes, side: str, values: Sequence[float]) -> None:
    """Make the x or y axis logarithmic where its values are positive and span over a decade."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    seen = _finite(values)
    if len(seen) and 0 < 10 * (low := seen.min()) < (high := seen.max()):
        axes.set(**{f"{side}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _finite(values: Sequence[float]) -> Image:
    """Return the numbers that can be drawn, (k,)."""
    every = np.asarray(values, dtype=float)
    finite: Image = every[np.isfinite(every)]
    return finite
