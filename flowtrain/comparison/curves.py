"""The figure of many runs: KL and NLL over steps, over time and over parameters."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flowtrain.evaluation.panels import fit_axis, scale_axis

ENTROPY = "entropy of the data"  # no expected NLL is lower
# Metrics by which runs are judged, the first that all of some data have. Only training that
# minimises KL(model | data) has it at its evaluations.
NAMES = {"kl_reverse": "KL(model | data)", "kl": "KL", "nll": "NLL", "elbo": "ELBO"}
MOST_COLORS = 20  # that an eye tells apart; of more groups, those of one model share a color
PANEL = (4.0, 3.2)  # inches
LETTER = 0.075  # inches of one in the legend


@dataclass(frozen=True)
class Curves:
    """What a picture of several runs shows of one.

    Attributes:
        group: names the color; runs of one group are seeds of one setting.
        model: names the color where there are too many groups.
        data: names the row of panels.
        steps: of the evaluations, (m,).
        seconds: of training at the evaluations, (m,).
        found: by metric of `NAMES`, those that the run has: by validation in nats, (m,).
        entropy: of the data in nats, if it is known.
        parameters: trained weights.
        final: by metric, of the best weights in nats; NaN where it is not known.
        error: of the level by validation in nats, if it is known: less is no course of a curve.

    >>> run = Curves(
    ...     group="realnvp", model="realnvp", data="moons", steps=[0, 100], seconds=[0.0, 1.5],
    ...     found={"nll": [3.0, 2.5]}, entropy=None, parameters=68, final={"nll": 2.5})
    >>> run.found["nll"][-1] == run.final["nll"]
    True
    """

    group: str
    model: str
    data: str
    steps: Sequence[float]
    seconds: Sequence[float]
    found: Mapping[str, Sequence[float]]
    entropy: float | None
    parameters: int
    final: Mapping[str, float]
    error: float = 0.0


def comparison_figure(runs: Sequence[Curves]) -> Figure:
    """Draw runs over steps, over time and over parameters: three panels for each data set.

    Every seed is a thin line, and the median of several a thick one. Beyond `MOST_COLORS` settings
    those of a model share a color.

    >>> run = Curves(
    ...     group="realnvp", model="realnvp", data="moons", steps=[0, 100], seconds=[0.0, 1.5],
    ...     found={"nll": [3.0, 2.5]}, entropy=None, parameters=68, final={"nll": 2.5})
    >>> [axis.get_title() for axis in comparison_figure([run]).axes]
    ['moons: NLL over steps', 'moons: NLL against time', 'moons: NLL against parameters']
    """
    data_sets = {
        name: [run for run in runs if run.data == name]
        for name in sorted({run.data for run in runs})
    }
    labels, colors = _legend(runs)
    by_likelihood = [each for each in data_sets.values() if _judging(each) in ("kl", "nll")]
    if any(run.entropy is not None for each in by_likelihood for run in each):
        labels[ENTROPY] = Line2D([], [], color="0.4", linewidth=1, linestyle="--")
    width = 3 * PANEL[0]
    names = [textwrap.fill(name, int(width / LETTER) - 10) for name in labels]
    across = max(1, min(len(names), int(width / (LETTER * max(map(len, names)) + 0.6))))
    depth = -(-len(names) // across) + sum(name.count("\n") for name in names)
    figure = Figure(
        figsize=(width, PANEL[1] * len(data_sets) + 0.2 * depth + 0.3), layout="constrained"
    )
    rows = figure.subplots(len(data_sets), 3, squeeze=False)
    for axes, (data, each) in zip(rows, data_sets.items(), strict=True):
        _draw_row(axes, each, colors, data)
    figure.legend(
        list(labels.values()), names, loc="outside lower center", fontsize=9, ncols=across,
        frameon=False,
    )  # fmt: skip
    return figure


def _legend(runs: Sequence[Curves]) -> tuple[dict[str, Line2D], dict[str, Any]]:
    """Return a line for each name of the legend, and the color of each group of runs."""
    groups = list(dict.fromkeys(run.group for run in runs))
    names = {group: group for group in groups}
    if len(groups) > MOST_COLORS:
        models = {run.group: run.model for run in runs}
        settings = list(models.values())
        names = {g: f"{model} ({settings.count(model)} settings)" for g, model in models.items()}
    shown = list(dict.fromkeys(names.values()))
    palette = colormaps["tab10" if len(shown) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    colors = {name: palette[place % len(palette)] for place, name in enumerate(shown)}
    lines = {name: Line2D([], [], color=color, linewidth=2.5) for name, color in colors.items()}
    return lines, {group: colors[name] for group, name in names.items()}


def _draw_row(
    axes: Sequence[Axes], runs: Sequence[Curves], colors: dict[str, Any], data: str
) -> None:
    """Draw the panels of one data set."""
    by_steps, by_time, by_parameters = axes
    judged = _judging(runs)
    level = "nll" if judged == "kl" else judged
    for group in dict.fromkeys(run.group for run in runs):
        seeds = [run for run in runs if run.group == group]
        color = colors[group]
        known = [run for run in seeds if judged in run.found and level in run.found]
        _draw_seeds(by_steps, [(run.steps, run.found[level]) for run in known], color)
        _draw_seeds(by_time, [(run.seconds, run.found[judged]) for run in known], color)
        for run in seeds:
            by_parameters.plot(
                run.parameters, run.final[judged], "o", color=color, alpha=0.8, markersize=5
            )
    floors = sorted({run.entropy for run in runs if run.entropy is not None and level == "nll"})
    for floor in floors:
        by_steps.axhline(floor, color="0.4", linewidth=1, linestyle="--", label=ENTROPY)
    for axis, name in ((by_steps, level), (by_time, judged)):
        curves = [run.found[name] for run in runs if name in run.found]
        if name in ("kl", "kl_reverse"):
            scale_axis(axis, "y", [value for curve in curves for value in curve])
            fit_axis(axis, curves)
        else:
            narrowest = 0.0 if floors else max(run.error for run in runs)
            fit_axis(axis, curves, floors=floors, narrowest=narrowest, rising=name == "elbo")
    scale_axis(by_parameters, "y", [run.final[judged] for run in runs])
    scale_axis(by_parameters, "x", [run.parameters for run in runs])
    name = NAMES[judged]
    by_steps.set(xlabel="step", ylabel=f"validation {NAMES[level]} (nats)")
    by_steps.locator_params(axis="x", integer=True)
    whole = {run.parameters for run in runs}
    if len(whole) == 1:
        by_parameters.set_xticks([*whole], [f"{number:,}" for number in whole])
    elif by_parameters.get_xscale() == "linear":
        by_parameters.locator_params(axis="x", integer=True)
    by_time.set(xlabel="seconds of training", ylabel=f"validation {name} (nats)")
    by_parameters.set(xlabel="parameters", ylabel=f"test {name} (nats)")
    shown = (f"{NAMES[level]} over steps", f"{name} against time", f"{name} against parameters")
    for axis, what in zip(axes, shown, strict=True):
        axis.set_title(textwrap.fill(f"{data}: {what}", int(0.85 * PANEL[0] / LETTER)), fontsize=10)
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)


def _judging(runs: Sequence[Curves]) -> str:
    """Return the metric that the runs on some data are judged by: the first that all have.

    A run whose history is lost has none.
    """
    kept = [run.found for run in runs if run.found] or [{}]
    return next((name for name in NAMES if all(name in found for found in kept)), "nll")


def _draw_seeds(
    axis: Axes, curves: Sequence[tuple[Sequence[float], Sequence[float]]], color: Any
) -> None:
    """Draw a line for each seed and, where evaluated alike, a thick one for their median."""
    alone = len(curves) == 1
    for x, y in curves:
        axis.plot(
            x, y, color=color, linewidth=1.5 if alone else 0.7, alpha=0.9 if alone else 0.5,
            marker="." if alone else None, markersize=5,
        )  # fmt: skip
    if not alone and len({len(x) for x, _ in curves}) == 1:
        x, y = np.median(np.asarray(curves, dtype=float), axis=0)
        axis.plot(x, y, color=color, linewidth=2.0, marker=".", markersize=5)
