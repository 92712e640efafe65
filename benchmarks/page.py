"""The page of `make bench`: its tables and its picture."""

import math
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

OURS, COMPILED = "flowtrain", "flowtrain, compiled"
TOO_LARGE = 100.0  # a KL that its power of ten tells
SETTINGS = {  # as the page calls them
    "trainer.batch_size": "batch",
    "model.hidden": "width",
    "model.width": "width",
    "model.couplings": "couplings",
    "model.depth": "depth",
    "data.dim": "dimensions",
    "solver.step_size": "step size",
}


def picture(found: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Return a figure of KL against the budget, a panel a density: ours in full lines.

    Args:
        found: KL in nats by density, name and budget.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (data, learners) in zip(panels, found.items(), strict=True):
        for number, (name, by_budget) in enumerate(learners.items()):
            style = "o-" if name.startswith(OURS) else "o--"
            budgets, values = [float(each) for each in by_budget], list(by_budget.values())
            color = colormaps["tab20"](2 * number % 20 + number // 10)  # strong ones before pale
            axes.plot(budgets, values, style, label=name, color=color, markersize=4)
        axes.set(
            title=data, xscale="log", yscale="log", ylim=(1e-3, 1), xlabel="CPU seconds of training"
        )
        axes.set_xticks(budgets, list(by_budget))
        axes.minorticks_off()
    panels[0].set_ylabel("KL to the data's law, nats")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def text(results: dict[str, Any]) -> str:
    """Return the page, in Markdown."""
    versions = ", ".join(f"{key} {value}" for key, value in results["environment"].items())
    lines = [
        "# Beside other libraries",
        "",
        "By `make bench`: one CPU core, one thread, seconds of the CPU, batches of 512, gradients",
        "clipped to 1. Peers have their documented losses and rates, on points whitened as ours.",
        "",
        f"*{versions}.*",
        "",
        "## KL after a budget of training",
        "",
        "KL(data | model) in nats, by the same quadrature for all; every budget is a training of",
        "its own, and its learning rate falls along half a cosine. What a library imports or",
        "compiles before its first step is not counted.",
        "",
        "![KL against the seconds of training](benchmarks.png)",
    ]
    for data, learners in results["kl"].items():
        budgets = list(next(iter(learners.values())))
        lines += ["", f"| {data} | " + " | ".join(f"{budget} s" for budget in budgets) + " |"]
        lines.append("|---|" + "--:|" * len(budgets))
        for name, found in learners.items():
            lines.append(f"| {name} | " + " | ".join(told(found[b]) for b in budgets) + " |")
    lines += [
        "",
        "## Milliseconds per training step",
        "",
        "The same architecture, all by Adam, in turns, medians. Beside each the time of",
        "flowtrain's step, not compiled, as a fraction of it; compiling is done once, and not",
        "counted. An adaptive solver takes the steps that its own weights ask for.",
        "",
        "| | ms | flowtrain's as a fraction | seconds to compile |",
        "|---|--:|--:|--:|",
    ]
    for name, found in results["step"].items():
        lines.append(f"| **{name}** | | | |")
        for library, each in found.items():
            share = "" if library == OURS else f"{found[OURS]['ms'] / each['ms']:.2f}"
            compiling = f"{each['compiling']:.0f}" if "compiled" in library else ""
            lines.append(f"| {library} | {each['ms']:.2f} | {share} | {compiling} |")
    lines += [
        "",
        "## Where a step's time goes",
        "",
        "Of flowtrain's steps above, not compiled, by torch's profiler: operations, those within",
        "others among them; parts in matrix products, in other arithmetic, in copies, and between",
        "operations, in Python, dispatch, autograd and the profiler. Compiling takes most of the",
        f"last two away. Adding two numbers took {results['shares']['dispatch']:.1f} µs here: the",
        "longer, the larger is the last part.",
        "",
        "| | operations | products | arithmetic | copies | between |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, found in results["shares"]["steps"].items():
        parts = [f"{found[key]:.0%}" for key in ("products", "arithmetic", "copies", "between")]
        lines.append(f"| {name} | {found['operations']:,.0f} | " + " | ".join(parts) + " |")
    lines += [
        "",
        "## How a step grows",
        "",
        "Milliseconds per training step by Adam, one setting of a model changed at a time, all",
        "else its own; more dimensions on `data=funnel`. `solver=midpoint` takes two evaluations",
        "a step, and its trace is exact up to 8 dimensions, estimated by one probe beyond.",
        "",
    ]
    for model, settings in results["growth"].items():
        for setting, found in settings.items():
            cells = ", ".join(f"{value}: {ms:.1f}" for value, ms in found.items())
            lines.append(f"- `{model}`, {SETTINGS[setting]} {cells}")
    lines += ["", "## Start", "", "CPU seconds from the shell to the end of the process.", ""]
    lines += [f"- `{name}`: {seconds:.2f}" for name, seconds in results["start"].items()]
    return "\n".join(lines) + "\n"


def told(kl: float) -> str:
    """Return a KL, or that the likelihood is infinite or NaN where there are data."""
    if not math.isfinite(kl):
        return "not finite"
    return f"{kl:.4f}" if kl < TOO_LARGE else f"{kl:.0e}"
