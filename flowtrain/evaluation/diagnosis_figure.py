"""The page of a diagnosis: coverage, base, marginals, quantiles, the least likely points, words."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowtrain.evaluation.diagnose import POINTS
from flowtrain.evaluation.diagnosis import Column, Diagnosis, Group
from flowtrain.text import for_figure

SHOWN = 2_000  # points of a scatter
LINES = 10  # coordinates or columns that have a line
GOOD, BAD = "tab:green", "tab:red"


def diagnosis_figure(
    found: Diagnosis,
    *,
    u: Tensor,
    test: Tensor,
    samples: Tensor,
    columns: Sequence[str],
    title: str,
) -> Figure:
    """Draw a diagnosis on one page.

    Args:
        found: what the tests say.
        u: the test points carried to the base, by its distribution function, (n, d).
        test: the points that were tested, (n, d).
        samples: of the model, (m, d).
        columns: d names.
        title: a line above the panels.

    >>> from flowtrain.evaluation.diagnose import diagnose
    >>> from flowtrain.runs.load import open_run
    >>> run, generator = open_run(run_folder), torch.Generator().manual_seed(0)
    >>> x, samples = run.splits.test.x, run.flow.sample(64, generator)
    >>> found = diagnose(
    ...     run.flow, run.splits.test, run.splits.train, columns=run.columns, density=run.density,
    ...     generator=generator, batch_size=1024)
    >>> figure = diagnosis_figure(
    ...     found, u=run.flow.base.cdf(run.flow.inverse(x)[0].detach()), test=x, samples=samples,
    ...     columns=run.columns, title="six steps of RealNVP")
    >>> [axes.get_title() for axes in figure.axes][:2]
    ['coverage (gray: 99% of chance)', 'points in the base']
    """
    figure = Figure(figsize=(14 if found.by_condition else 11, 7), layout="constrained")
    figure.suptitle(title, fontsize=12)
    panels: list[Any] = [["coverage", "base", "marginals"], ["tails", "worst", "words"]]
    if found.by_condition:
        panels = [["coverage", "conditions", "base", "words"],
                  ["marginals", "tails", "worst", "words"]]  # fmt: skip
    axes = figure.subplot_mosaic(panels)
    _coverage(axes["coverage"], found)
    _base(axes["base"], u)
    _marginals(axes["marginals"], found.columns)
    _tails(axes["tails"], found.columns)
    _worst(axes["worst"], found, test, samples, columns)
    _words(axes["words"], found)
    if found.by_condition:
        _conditions(axes["conditions"], found.by_condition)
    return figure


def _coverage(axes: Axes, found: Diagnosis) -> None:
    nominal = np.array([*found.coverage])
    gap = np.array([*found.coverage.values()]) - nominal
    chance = 2.58 * np.sqrt(nominal * (1 - nominal) * (1 / found.points + 1 / POINTS))
    axes.fill_between(nominal, -chance, chance, color="0.85")
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.plot(nominal, gap, marker="o", markersize=3, color="tab:blue")
    axes.set_title("coverage (gray: 99% of chance)", fontsize=11)  # a legend would hide points
    axes.set_xlabel("mass of the model's densest region")
    axes.set_ylabel("points in it, more or less")


def _conditions(axes: Axes, found: Sequence[Group]) -> None:
    worst = sorted(found, key=lambda group: group.p_value)[:LINES]
    for group in worst:
        nominal = np.array([*group.coverage])
        gap = np.array([*group.coverage.values()]) - nominal
        axes.plot(nominal, gap, marker="o", markersize=2, label=for_figure(group.label))
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_title("coverage, the worst" if len(found) > LINES else "coverage by condition")
    axes.title.set_fontsize(11)
    axes.set_xlabel("mass of the model's densest region")
    axes.legend(fontsize=7)


def _base(axes: Axes, u: Tensor) -> None:
    values = u.double().cpu().numpy()
    bins = np.linspace(0, 1, max(6, min(41, round(len(values) ** 0.5)))).tolist()
    for index in range(min(values.shape[1], LINES)):
        axes.hist(
            values[:, index], bins=bins, density=True, histtype="step", label=f"z{index}",
            linewidth=1,
        )  # fmt: skip
    axes.axhline(1, color="0.2", linewidth=0.8, label="the base's law")
    axes.set_title("points in the base", fontsize=11)
    axes.set_xlabel("probability integral transform")
    axes.legend(fontsize=8)


def _marginals(axes: Axes, columns: Sequence[Column]) -> None:
    worst = sorted(columns, key=lambda column: -column.distance)[:LINES][::-1]
    axes.barh([column.name for column in worst], [c.distance for c in worst], color="tab:blue")
    axes.set_title("marginals, the worst" if len(columns) > LINES else "marginals", fontsize=11)
    axes.set_xlabel("largest gap of the distribution functions")


def _tails(axes: Axes, columns: Sequence[Column]) -> None:
    worst = sorted(columns, key=lambda column: -column.distance)[:LINES]
    for column in worst:
        data, model = (np.array(side) for side in zip(*column.quantiles.values(), strict=True))
        spread = (data[-1] - data[0]) or 1.0
        levels = [f"{level:.1%}" for level in column.quantiles]
        axes.plot(levels, (model - data) / spread, marker="o", markersize=3, label=column.name)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_title("quantiles, model - points", fontsize=11)
    axes.set_ylabel("of the points' range")
    axes.legend(fontsize=8)


def _worst(
    axes: Axes, found: Diagnosis, test: Tensor, samples: Tensor, columns: Sequence[str]
) -> None:
    x, y = (points[:SHOWN].double().cpu().numpy() for points in (test, samples))
    if x.shape[1] == 1:
        axes.hist([x[:, 0], y[:, 0]], bins=30, density=True, label=["points", "samples"])
        axes.set_xlabel(columns[0])
    else:
        for points, name, color in ((x, "points", "tab:blue"), (y, "samples", "tab:orange")):
            axes.scatter(points[:, 0], points[:, 1], s=2, color=color, linewidths=0, label=name)
        bad = test[found.worst].double().cpu().numpy()
        axes.scatter(
            bad[:, 0], bad[:, 1], s=60, facecolors="none", edgecolors="black", label="least likely"
        )
        axes.set_xlabel(columns[0])
        axes.set_ylabel(columns[1])
    axes.set_title("points and samples", fontsize=11)
    axes.legend(fontsize=8, markerscale=2)


def _words(axes: Axes, found: Diagnosis) -> None:
    axes.set_axis_off()
    top, line = 1.0, 0.028 if found.by_condition else 0.055  # the panel is higher
    for good, words in found.findings():
        lines = textwrap.wrap(words, 42)
        mark, color = ("fits", GOOD) if good else ("off", BAD)
        axes.text(0.0, top, mark, color=color, fontsize=10, va="top", weight="bold")
        axes.text(0.13, top, "\n".join(lines), fontsize=9, va="top", parse_math=False)
        top -= line * (len(lines) + 0.9)
