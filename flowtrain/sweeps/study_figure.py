"""The picture of a study: its figures trial by trial, and against each setting."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE = "#1f77b4", "#ff7f0e"


def study_figure(trials: Sequence[Any], keys: Sequence[str]) -> Figure:
    """Draw a panel of the figures over trials, and one of them against each setting.

    Args:
        trials: of Optuna, at least one completed.
        keys: of the settings to show.
    """
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    pruned = [
        trial for trial in trials if trial.state.name == "PRUNED" and trial.intermediate_values
    ]
    figure = Figure(figsize=(3.2 * (1 + len(keys)), 3.2), layout="constrained")
    over_trials, *panels = figure.subplots(1, 1 + len(keys), sharey=True, squeeze=False)[0]
    numbers, values = [trial.number for trial in completed], [trial.value for trial in completed]
    _points(over_trials, numbers, values, [t.number for t in pruned], pruned)
    best = np.minimum.accumulate(values)
    over_trials.step(numbers, best, where="post", color="0.4", linewidth=1, label="best so far")
    over_trials.set(xlabel="trial", ylabel="validation KL or NLL (nats)")
    shown = [*values, *map(last_figure, pruned)]
    if 0 < 10 * min(shown) < max(shown):
        over_trials.set(yscale="log")
    figure.legend(
        *over_trials.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip
    for axes, key in zip(panels, keys, strict=True):
        known = [trial for trial in completed if key in trial.params]
        space = known[0].distributions[key]
        choices = list(getattr(space, "choices", ()))

        def place(trial: Any, key: str = key, choices: list[str] = choices) -> Any:
            value = trial.params[key]
            return choices.index(value) if choices else value

        _points(axes, [*map(place, known)], [t.value for t in known], [*map(place, pruned)], pruned)
        if choices:
            axes.set_xticks(range(len(choices)), choices)
        elif space.log:
            axes.set(xscale="log")
        axes.set_xlabel(key.replace("$", r"\$"), fontsize=9)
    return figure


def last_figure(trial: Any) -> float:
    """Return what a trial reported last."""
    return float(trial.intermediate_values[max(trial.intermediate_values)])


def _points(
    axes: Axes, x: Sequence[Any], y: Sequence[float], x_pruned: Sequence[Any], pruned: Sequence[Any]
) -> None:
    last = [last_figure(trial) for trial in pruned]
    axes.scatter(x, y, s=18, color=BLUE, label="completed")
    axes.scatter(x_pruned, last, s=18, marker="x", color=ORANGE, label="pruned, its last figure")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
