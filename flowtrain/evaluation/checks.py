"""Whether the metrics of a run can be true, and whether they are any good."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from flowtrain.evaluation.tags import BASELINES

MOST = 1.01  # mass that a density may seem to have, by the error of the grid
DROPPED = 0.1  # of a component's mass is left where a mode was dropped
TOLD = 5  # warnings alike are told one by one; of more, the first
HOLE = 0.1  # nats of KL that the test points do not see
LARGE_GAP = 0.01  # nats between two solvers' readings of one likelihood
REMEDY = "try a lower optimizer.lr, a smaller model, or more frequent evaluations"
UNFIT = "it fits its training points no better: try another or a larger model, or more steps"


def start_kept(
    *, best_step: int | None, step: int, init_from: str | None, whitening: str
) -> Literal["untrained", "gaussian"] | None:
    """Return what the best weights are where training improved on none of its own start.

    Args:
        best_step: that the best weights are of.
        step: that training came to.
        init_from: the run whose weights it began with, if it did.
        whitening: of the model; but for "columns", a flow begins as the best Gaussian.

    >>> start_kept(best_step=0, step=100, init_from=None, whitening="columns")
    'untrained'
    """
    if best_step != 0 or step == 0 or init_from is not None:
        return None
    return "untrained" if whitening == "columns" else "gaussian"


def warnings_about(
    metrics: dict[str, float], *, untrained: bool = False, base: str = "normal"
) -> Iterator[str]:
    """Yield a warning for each metric that cannot be true, or that a baseline beats.

    Args:
        metrics: by tag.
        untrained: whether the best weights are those that training began with.
        base: the name of the model's.

    >>> list(warnings_about({"nll/test": 2.5, "mass/test": 0.9}))
    ["10.0% of the model's mass lies outside the data's window"]
    """
    if untrained:
        yield f"no evaluation was better than the untrained flow, whose weights are kept: {REMEDY}"
    if kl_is_negative(metrics):
        yield f"KL is {metrics['kl/test']:.4f}, below zero: this likelihood is wrong, not good"
    if has_hole(metrics):
        yield (
            f"KL is {metrics['kl/test']:.4f} by quadrature, {metrics['kl_paired/test']:.4f} by the "
            "test points: the model has a hole where the data are rare; try "
            + ("another seed or model=spline" if base == "student_t" else "model.base=student_t")
        )
    if math.isnan(metrics.get("kl/test", 0.0)):
        yield "KL by quadrature is unknown: the grid misses the density; raise evaluation.grid"
    gap = metrics.get("solver_gap/test", metrics.get("solver_gap/val", 0.0))
    if abs(gap) > LARGE_GAP:
        yield (
            f"the training solver reads NLL {gap:+.4f} nats off the evaluation solver: "
            "the model exploits its solver; train with a tighter one"
        )
    baselines = [(metrics[tag], name) for name in BASELINES if (tag := f"{name}/test") in metrics]
    if baselines:
        best, baseline = min(baselines)
        nll, error = metrics["nll/test"], _error(metrics, "nll")
        if nll - best > error:
            unfit = metrics.get("nll/train", -math.inf) - best > error
            yield (
                f"{BASELINES[baseline]} beats this flow on held-out points: NLL {best:.4f} against "
                f"{nll:.4f} ± {error:.4f} nats: {UNFIT if unfit else REMEDY}"
            )
    least = metrics.get("least_component/test", 1.0)
    if least < DROPPED:
        yield f"the model has {least:.1%} of the mass of a component of the data: it dropped a mode"
    mass = metrics.get("mass/test", 1.0)
    if mass > MOST:
        yield f"the model's density integrates to {mass:.4f}: it is no density"
    if mass < 0.99:
        yield f"{1 - mass:.1%} of the model's mass lies outside the data's window"


def of_several(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the warnings about several runs; one about many of them, but for its figures, once.

    Args:
        found: the name of a run, and a warning about it.

    >>> list(of_several((f"run {i}", f"mass {i}.5%") for i in range(8)))
    ['run 0: mass 0.5%; likewise 7 more runs']
    """
    alike: dict[str, list[str]] = {}
    for name, line in found:
        alike.setdefault(re.sub(r"[\d.]+", "", line), []).append(f"{name}: {line}")
    for lines in alike.values():
        if len(lines) <= TOLD:
            yield from lines
        else:
            yield f"{lines[0]}; likewise {len(lines) - 1} more runs"


def kl_is_negative(metrics: dict[str, float]) -> bool:
    """Return whether KL is below zero by more than its error: then it is wrong, not good.

    >>> kl_is_negative({"kl/test": -0.1, "kl_error/test": 0.01})
    True
    >>> kl_is_negative({"kl/test": -0.01, "kl_error/test": 0.01})
    False
    """
    return metrics.get("kl/test", 0.0) < -max(3 * _error(metrics, "kl"), 1e-3)


def has_hole(metrics: dict[str, float]) -> bool:
    """Return whether quadrature finds KL where hardly a test point falls, far beyond both errors.

    >>> kl = {"kl/test": 139.4, "kl_error/test": 40.2}
    >>> has_hole(kl | {"kl_paired/test": 0.019, "kl_paired_error/test": 0.001})
    True
    >>> has_hole(kl | {"kl_paired/test": 130.0, "kl_paired_error/test": 4.0})
    False
    """
    gap = metrics.get("kl/test", 0.0) - metrics.get("kl_paired/test", math.inf)
    grid, points = (_error(metrics, name) for name in ("kl", "kl_paired"))
    return gap > max(HOLE, 2 * grid, 5 * points)  # half as fine a grid sees less of a hole


def _error(metrics: dict[str, float], name: str) -> float:
    """Return the error of a test metric; 0 where it is not known, as that of a KL of -inf."""
    error = metrics.get(f"{name}_error/test", 0.0)
    return 0.0 if math.isnan(error) else error
