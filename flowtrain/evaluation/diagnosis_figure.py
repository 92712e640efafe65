"""The page of a diagnosis: coverage, base, marginals, quantiles, the least likely points, words."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from flowtrain.evaluation.diagnose import POINTS, Evidence
from flowtrain.evaluation.diagnosis import Column, Diagnosis, Group
from flowtrain.text import for_figure, one_line

SHOWN = 2_000  # points of a scatter
LINES = 10  # coordinates or columns that have a line
WIDTH, HEIGHT = 13.5, 7.2  # inches of the panels
LEAST = 4.0  # inches of the panel above the words
RIGHT = 1.2  # columns of panels that the right one is wide, with its legends
LINE, LETTER, INDENT = 0.17, 0.07, 0.5  # inches of words
GAP = 0.5  # lines between findings
FOLD = 24  # letters of a name in a line
GOOD, BAD = "tab:green", "tab:red"
Words = list[tuple[bool, list[str]]]


def diagnosis_figure(
    found: Diagnosis, evidence: Evidence, *, columns: Sequence[str], title: str
) -> Figure:
    """Draw a diagnosis on one page.

    Args:
        found: what the tests say.
        evidence: what they were made of.
        columns: d names.
        title: a line above the panels.

    >>> from flowtrain.evaluation.diagnose import diagnose
    >>> from flowtrain.runs.load import open_run
    >>> run, generator = open_run(run_folder), torch.Generator().manual_seed(0)
    >>> found, evidence = diagnose(
    ...     run.flow, run.splits.test, run.splits.train, columns=run.columns, density=run.density,
    ...     generator=generator, batch_size=1024)
    >>> figure = diagnosis_figure(
    ...     found, evidence, columns=run.columns, title="six steps of RealNVP")
    >>> [axes.get_title() for axes in figure.axes][:2]
    ['coverage (gray: 99% of chance)', 'points in the base (dashed: its law)']
    """
    figure = Figure(layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = (_with_conditions if found.by_condition else _without_conditions)(figure, found)
    _coverage(axes["coverage"], found)
    _base(axes["base"], evidence.u)
    _marginals(axes["marginals"], found.columns)
    _tails(axes["tails"], found.columns)
    _worst(axes["worst"], found, evidence.points, evidence.samples, columns)
    return figure


def _without_conditions(figure: Figure, found: Diagnosis) -> dict[str, Axes]:
    """Lay a page out, its words at the lower right; return its panels by name."""
    width = WIDTH * RIGHT / (2 + RIGHT)
    words = _folded(found, width)
    height = max(HEIGHT, _inches(words) + LEAST)
    figure.set_size_inches(WIDTH, height)
    left, right = _parts(figure, 1, 2, width_ratios=[2, RIGHT])
    heights = [height - _inches(words), _inches(words)]
    above, below = _parts(right, 2, 1, height_ratios=heights)
    _words(below, words, width, _inches(words))
    panels = left.subplot_mosaic([["coverage", "base"], ["marginals", "tails"]])
    return {**panels, **above.subplot_mosaic([["worst"]])}


def _parts(whole: Figure | SubFigure, rows: int, columns: int, **ratios: Any) -> list[SubFigure]:
    return [*whole.subfigures(rows, columns, squeeze=False, **ratios).flat]


def _with_conditions(figure: Figure, found: Diagnosis) -> dict[str, Axes]:
    """Lay a page out, its words in two columns below, and draw what is known by condition."""
    words = _folded(found, WIDTH / 2)
    half = (len(words) + 1) // 2
    columns = words[:half], words[half:]
    strip = max(map(_inches, columns))
    figure.set_size_inches(WIDTH, HEIGHT + strip)
    top, bottom = _parts(figure, 2, 1, height_ratios=[HEIGHT, strip])
    for place, column in zip(_parts(bottom, 1, 2), columns, strict=True):
        _words(place, column, WIDTH / 2, strip)
    panels: dict[str, Axes] = top.subplot_mosaic(
        [["coverage", "base", "conditions"], ["marginals", "tails", "worst"]],
        width_ratios=[1, 1, RIGHT],
    )
    _conditions(panels["conditions"], found.by_condition)
    return panels


def _coverage(axes: Axes, found: Diagnosis) -> None:
    nominal = np.array([*found.coverage])
    gap = np.array([*found.coverage.values()]) - nominal
    chance = 2.58 * np.sqrt(nominal * (1 - nominal) * (1 / found.points + 1 / POINTS))
    axes.fill_between(nominal, -chance, chance, color="0.85")
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.plot(nominal, gap, marker="o", markersize=3, color="tab:blue")
    axes.set_title("coverage (gray: 99% of chance)", fontsize=11)
    axes.set_xlabel("mass of the model's densest region")
    axes.set_ylabel("points in it, more or less")


def _conditions(axes: Axes, found: Sequence[Group]) -> None:
    limit = sorted(group.p_value for group in found)[:LINES][-1]
    worst = [group for group in found if group.p_value <= limit][:LINES]  # in the table's order
    for group in worst:
        nominal = np.array([*group.coverage])
        gap = np.array([*group.coverage.values()]) - nominal
        axes.plot(nominal, gap, marker="o", markersize=2, label=_name(group.label))
    axes.axhline(0, color="0.5", linewidth=0.8)
    many = f"coverage, the {LINES} worst of {len(found)} conditions"
    axes.set_title(many if len(found) > LINES else "coverage by condition", fontsize=11)
    axes.set_xlabel("mass of the model's densest region")
    _legend(axes)


def _base(axes: Axes, u: Tensor) -> None:
    values = u.double().cpu().numpy()
    bins = np.linspace(0, 1, max(6, min(41, round(len(values) ** 0.5)))).tolist()
    for index in range(min(values.shape[1], LINES)):
        axes.hist(
            values[:, index], bins=bins, density=True, histtype="step", label=f"z{index}",
            linewidth=1,
        )  # fmt: skip
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.set_title("points in the base (dashed: its law)", fontsize=11)
    axes.set_xlabel("probability integral transform")
    _legend(axes)


def _marginals(axes: Axes, columns: Sequence[Column]) -> None:
    worst = _farthest(columns)
    places = range(len(worst))
    colors = [f"C{place}" for place in places]  # those of the quantiles' lines
    axes.barh(places, [column.distance for column in worst], color=colors)
    axes.set_yticks(places, [_name(column.name) for column in worst], fontsize=8)
    axes.invert_yaxis()
    axes.set_title("marginals, the worst" if len(columns) > LINES else "marginals", fontsize=11)
    axes.set_xlabel("largest gap of the distribution functions")


def _tails(axes: Axes, columns: Sequence[Column]) -> None:
    for column in _farthest(columns):
        data, model = (np.array(side) for side in zip(*column.quantiles.values(), strict=True))
        spread = (data[-1] - data[0]) or 1.0
        levels = [f"{level:.1%}" for level in column.quantiles]
        axes.plot(levels, (model - data) / spread, marker="o", markersize=3)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_title("quantiles, model - points", fontsize=11)
    axes.set_xlabel("level (colors of the marginals)")
    axes.set_ylabel("of the points' range")


def _farthest(columns: Sequence[Column]) -> list[Column]:
    return sorted(columns, key=lambda column: -column.distance)[:LINES]


def _worst(
    axes: Axes, found: Diagnosis, test: Tensor, samples: Tensor, columns: Sequence[str]
) -> None:
    shown = min(SHOWN, len(test), len(samples))  # as many of both
    x, y = (points[:shown].double().cpu().numpy() for points in (test, samples))
    if x.shape[1] == 1:
        axes.hist([x[:, 0], y[:, 0]], bins=30, density=True, label=["points", "samples"])
    else:
        for points, name, color in ((x, "points", "tab:blue"), (y, "samples", "tab:orange")):
            axes.scatter(points[:, 0], points[:, 1], s=2, color=color, linewidths=0)
            axes.scatter([], [], s=12, color=color, linewidths=0, label=name)  # for the legend
        bad = test[found.worst].double().cpu().numpy()
        axes.scatter(
            bad[:, 0], bad[:, 1], s=60, facecolors="none", edgecolors="black", label="least likely"
        )
        axes.set_ylabel(for_figure(columns[1]))
    axes.set_xlabel(for_figure(columns[0]))
    axes.set_title("points and samples", fontsize=11)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Write a legend at the right of a panel, where it hides nothing."""
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0, handlelength=1.2, fontsize=8,
        frameon=False,
    )  # fmt: skip


def _name(name: str) -> str:
    return "\n".join(for_figure(line) for line in textwrap.wrap(one_line(name), FOLD))


def _folded(found: Diagnosis, width: float) -> Words:
    """Return for each finding whether it is good, and its words in lines for a width in inches."""
    letters, kept = int((width - INDENT) / LETTER), "\N{NO-BREAK SPACE}"

    def folded(words: str) -> list[str]:
        whole = words.replace(" = ", f"{kept}={kept}")
        return [line.replace(kept, " ") for line in textwrap.wrap(whole, letters)]

    return [(good, folded(words)) for good, words in found.findings()]


def _inches(words: Words) -> float:
    return LINE * (sum(len(lines) + GAP for _, lines in words) + GAP)


def _words(place: SubFigure, words: Words, width: float, height: float) -> None:
    """Write findings from the top of a place, whose size is in inches."""
    top = height
    for good, lines in words:
        mark, color = ("fits", GOOD) if good else ("off", BAD)
        place.text(
            0.1 / width, top / height, mark, color=color, fontsize=9, va="top", weight="bold"
        )  # fmt: skip
        place.text(
            INDENT / width, top / height, "\n".join(lines), fontsize=9, va="top",
            parse_math=False,
        )  # fmt: skip
        top -= LINE * (len(lines) + GAP)
