"""The figure of many runs: KL and NLL over steps, over time and over parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flowtrain.evaluation.images import Image

ENTROPY = "entropy of the data"  # no NLL can be lower


@dataclass(frozen=True)
class Curves:
    """What a picture of several runs shows of one.

    Attributes:
        group: names the color.
        data: names the row of panels.
        steps: of the evaluations, (m,).
        seconds: of training at the evaluations, (m,).
        nll: on the validation points in nats, (m,).
        kl: on the validation points in nats, (m,); None where the density is not known.
        entropy: of the data in nats, if it is known.
        parameters: trained weights.
        final: KL on the test points in nats, NLL where the density is not known.

    >>> run = Curves(
    ...     group="realnvp", data="moons", steps=[0, 100], seconds=[0.0, 1.5], nll=[3.0, 2.5],
    ...     kl=None, entropy=None, parameters=68, final=2.5)
    >>> run.nll[-1] == run.final
    True
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
    """Draw runs over steps, over time and over parameters: three panels for each data set.

    >>> run = Curves(
    ...     group="realnvp", data="moons", steps=[0, 100], seconds=[0.0, 1.5], nll=[3.0, 2.5],
    ...     kl=None, entropy=None, parameters=68, final=2.5)
    >>> [axis.get_title() for axis in comparison_figure([run]).axes]
    ['moons: NLL over steps', 'NLL against time', 'NLL against parameters']
    """
    data_sets = sorted({run.data for run in runs})
    groups = list(dict.fromkeys(run.group for run in runs))
    spread = colormaps["tab10"].colors if len(groups) <= 10 else None  # type: ignore[attr-defined]
    colors = spread or colormaps["turbo"](np.linspace(0.05, 0.95, len(groups)))
    figure = Figure(figsize=(12, 3.3 * len(data_sets) + 0.6), layout="constrained")
    rows = figure.subplots(len(data_sets), 3, squeeze=False)
    for axes, data in zip(rows, data_sets, strict=True):
        of_data = [run for run in runs if run.data == data]
        _comparison_row(axes, of_data, dict(zip(groups, colors, strict=False)))
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
