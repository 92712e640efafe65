"""The picture of a study: its figures trial by trial, and against each setting."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowtrain.evaluation.panels import scale_axis
from flowtrain.text import for_figure

BLUE, ORANGE = "#1f77b4", "#ff7f0e"
LETTERS = 28  # of choices that stand side by side under a panel
STEPS = 8  # of a range whose numbers are all written


def study_figure(trials: Sequence[Any], keys: Sequence[str], *, told: str) -> Figure:
    """Draw a panel of the figures over trials, and one of them against each setting.

    Args:
        trials: of Optuna, at least one completed.
        keys: of the settings to show.
        told: the name of the figure that the trials were told by.
    """
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    pruned = [
        trial for trial in trials if trial.state.name == "PRUNED" and trial.intermediate_values
    ]
    count = 1 + len(keys)
    across = 2 if count == 4 else min(count, 3)
    rows = -(-count // across)
    figure = Figure(figsize=(3.4 * across, 2.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, across, sharey=True, squeeze=False)
    over_trials, *panels = grid.flat
    for empty in panels[len(keys) :]:
        empty.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"validation {told} (nats)", fontsize=9)
    numbers, values = [trial.number for trial in completed], [trial.value for trial in completed]
    _points(over_trials, numbers, values, [trial.number for trial in pruned], pruned)
    if len(completed) > 1:
        best = np.minimum.accumulate(values)
        over_trials.step(
            numbers, best, where="post", color="0.4", linewidth=1, label="best so far"
        )  # fmt: skip
    over_trials.set_xlabel("trial", fontsize=9)
    over_trials.xaxis.set_major_locator(_whole())
    last = max(trial.number for trial in [*completed, *pruned])
    margin = max(0.5, 0.04 * last)
    over_trials.set_xlim(-margin, last + margin)
    scale_axis(over_trials, "y", [*values, *map(last_figure, pruned)])
    figure.legend(
        *over_trials.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip
    for axes, key in zip(panels, keys, strict=False):
        known = [trial for trial in completed if key in trial.params]
        space = known[0].distributions[key]
        choices = list(getattr(space, "choices", ()))

        def place(trial: Any, key: str = key, choices: list[str] = choices) -> Any:
            value = trial.params[key]
            return choices.index(value) if choices else value

        _points(axes, [*map(place, known)], [t.value for t in known], [*map(place, pruned)], pruned)
        if choices:
            _name(axes, choices)
        else:
            _measure(axes, space)
        axes.set_xlabel(for_figure(key), fontsize=9)
    return figure


def last_figure(trial: Any) -> float:
    """Return what a trial reported last."""
    return float(trial.intermediate_values[max(trial.intermediate_values)])


def _points(
    axes: Axes, x: Sequence[Any], y: Sequence[float], x_pruned: Sequence[Any], pruned: Sequence[Any]
) -> None:
    axes.scatter(x, y, s=18, color=BLUE, label="completed")
    if pruned:
        last = [last_figure(trial) for trial in pruned]
        axes.scatter(
            x_pruned, last, s=18, marker="x", color=ORANGE, label="pruned, its last figure"
        )
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _name(axes: Axes, choices: Sequence[str]) -> None:
    """Write the choices of a setting under its panel, aslant where they are long."""
    names = [for_figure(str(choice)) for choice in choices]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    if sum(map(len, names)) > LETTERS:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def _measure(axes: Axes, space: Any) -> None:
    """Show the whole range of a setting that was searched."""
    axes.update_datalim([(space.low, 0), (space.high, 0)], updatey=False)
    if space.log:
        scale_axis(axes, "x", [space.low, space.high], factor=5)
    elif space.step and space.high - space.low < STEPS * space.step:
        axes.set_xticks(np.arange(space.low, space.high + space.step / 2, space.step))
    else:
        axes.xaxis.set_major_locator(_whole() if isinstance(space.low, int) else MaxNLocator(5))


def _whole() -> MaxNLocator:
    return MaxNLocator(7, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
