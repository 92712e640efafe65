"""The figure of how one run learned: NLL and KL over its steps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowtrain.evaluation.images import Image
from flowtrain.evaluation.panels import finite, scale_axis, write_title

History = Sequence[dict[str, float | None]]


def curves_figure(history: History, *, title: str) -> Figure:
    """Draw the NLL of batches and evaluations, and KL where the density is known, over steps.

    A run that does not train by likelihood shows its loss beside them. A target without points has
    no NLL, but the ELBO.

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
    shown += ["loss"] if "loss" in logged and "nll/batch" not in logged else []
    figure = Figure(figsize=(4.6 * len(shown) + 0.4, 3.8), layout="constrained")
    write_title(figure, title)
    for axis, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        match name:
            case "NLL":
                _draw_nll(axis, history, "nll_paired" if "nll_paired/val" in logged else "nll")
            case "ELBO":
                axis.plot(*_series(history, "elbo/val"), color="tab:orange", marker=".")
                axis.set_ylabel("nats")
            case "KL":
                _draw_kl(axis, history)
            case "loss":
                axis.plot(*_series(history, "loss"), color="tab:gray", linewidth=1)
                axis.set_ylabel("loss of the batch")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
        axis.locator_params(axis="x", integer=True)
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def _draw_nll(axis: Axes, history: History, name: str) -> None:
    batch = _series(history, "nll/batch")
    if len(batch[0]):
        axis.plot(*batch, color="0.7", linewidth=0.8, label="batch")
    val = _series(history, f"{name}/val")
    axis.plot(*_series(history, f"{name}/train"), "-", color="tab:blue", marker=".", label="train")
    axis.plot(*val, "-", color="tab:orange", marker=".", label="validation")
    floor = _series(history, "nll/entropy")[1]
    if len(floor):
        axis.axhline(floor[0], color="0.3", linewidth=1, linestyle="--", label="entropy")
    # The first points can be far off: they would flatten all that follows.
    seen = finite(np.concatenate([val[1], batch[1]]))
    if len(seen):
        low, high = min([seen.min(), *floor[:1]]), float(np.quantile(seen, 0.9))
        margin = 0.08 * (high - low) or 0.1
        axis.set_ylim(low - margin, high + margin)
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
    axis.set_ylabel("nats")
    axis.legend(fontsize=8, frameon=False)


def _series(history: History, tag: str) -> tuple[Image, Image]:
    """Return the steps at which a tag was logged, and its values; NaN where it was not finite."""
    lines = [line for line in history if tag in line]
    steps = np.array([line["step"] for line in lines], dtype=float)
    values = np.array([np.nan if line[tag] is None else line[tag] for line in lines], dtype=float)
    return steps, values
