"""The figure of how one run learned: NLL and KL over its steps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowtrain.evaluation.images import Image
from flowtrain.evaluation.panels import finite, fit_axis, scale_axis, write_title

History = Sequence[dict[str, float | None]]


def curves_figure(history: History, *, title: str) -> Figure:
    """Draw the NLL of batches and evaluations, and KL where the density is known, over steps.

    Steps that do not train by likelihood show their loss beside them, and the legend says from
    which step on batches have an NLL. A target without points has no NLL, but the ELBO.

    Args:
        history: the lines of metrics.jsonl.
        title: a line above the panels.

    >>> history = [{"step": 0, "nll/val": 3.0, "nll/train": 3.0}, {"step": 9, "nll/batch": 2.5}]
    >>> [axis.get_title() for axis in curves_figure(history, title="run").axes]
    ['NLL']
    """
    logged = {tag for line in history for tag in line}
    without_points = "elbo/val" in logged and "nll/val" not in logged
    shown = ["ELBO" if without_points else "NLL", *(["KL"] if "kl/val" in logged else [])]
    other = [line for line in history if "nll/batch" not in line]
    shown += ["loss"] if any("loss" in line for line in other) else []
    figure = Figure(figsize=(4.6 * len(shown) + 0.4, 3.8), layout="constrained")
    write_title(figure, title)
    for axis, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        match name:
            case "NLL":
                _draw_nll(axis, history, "nll_paired" if "nll_paired/val" in logged else "nll")
            case "ELBO":
                steps, elbo = _series(history, "elbo/val")
                axis.plot(steps, elbo, color="tab:orange", marker=".")
                fit_axis(axis, [elbo], narrowest=_last(history, "elbo_error/val"), rising=True)
                axis.set_ylabel("nats")
            case "KL":
                _draw_kl(axis, history)
            case "loss":
                axis.plot(*_series(other, "loss"), color="tab:gray", linewidth=1)
                axis.set_ylabel("loss of the batch")
        mixed = name == "loss" and "nll/batch" in logged
        axis.set_title("loss before likelihood" if mixed else name, fontsize=10)
        axis.set_xlabel("step")
        axis.locator_params(axis="x", integer=True)
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def _draw_nll(axis: Axes, history: History, name: str) -> None:
    batch = _series(history, "nll/batch")
    if len(batch[0]) > 1:  # one batch is no curve
        mixed = any("loss" in line and "nll/batch" not in line for line in history)
        label = f"batch, from step {batch[0][0]:,.0f}" if mixed else "batch"
        axis.plot(*batch, color="0.7", linewidth=0.8, label=label)
    train, val = (_series(history, f"{name}/{split}") for split in ("train", "val"))
    axis.plot(*train, "-", color="tab:blue", marker=".", label="train")
    axis.plot(*val, "-", color="tab:orange", marker=".", label="validation")
    floor = _series(history, "nll/entropy")[1]
    if len(floor):
        axis.axhline(floor[0], color="0.3", linewidth=1, linestyle="--", label="entropy")
    error = 0.0 if len(floor) else _last(history, "nll_error/val")  # beside entropy it cancels
    late = batch[1][(len(batch[1]) + 1) // 2 :]  # noise of the first ones would set the range
    fit_axis(axis, [val[1], train[1], late], floors=floor[:1], narrowest=error)
    axis.set_ylabel("nats")
    axis.legend(fontsize=8, frameon=False)


def _draw_kl(axis: Axes, history: History) -> None:
    """Draw KL with its standard error, on a logarithmic scale where it spans a decade."""
    steps, kl = _series(history, "kl/val")
    _, error = _series(history, "kl_error/val")
    axis.plot(steps, kl, color="tab:orange", marker=".", label="validation ± error")
    axis.fill_between(steps, kl - error, kl + error, color="tab:orange", alpha=0.25, linewidth=0)
    if (kl - error > 0).all():  # a logarithm would hide a band that ends below
        scale_axis(axis, "y", kl)
    fit_axis(axis, [kl - error, kl + error])
    axis.set_ylabel("nats")
    axis.legend(fontsize=8, frameon=False)


def _last(history: History, tag: str) -> float:
    """Return the last finite value of a tag; 0 where there is none."""
    return float([0.0, *finite(_series(history, tag)[1])][-1])


def _series(history: History, tag: str) -> tuple[Image, Image]:
    """Return the steps at which a tag was logged, and its values; NaN where it was not finite."""
    lines = [line for line in history if tag in line]
    steps = np.array([line["step"] for line in lines], dtype=float)
    values = np.array([np.nan if line[tag] is None else line[tag] for line in lines], dtype=float)
    return steps, values
