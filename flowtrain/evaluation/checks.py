"""Whether the metrics of a run can be true, and whether they are any good."""

from collections.abc import Iterator


def warnings_about(metrics: dict[str, float]) -> Iterator[str]:
    """Yield a warning for each metric that cannot be true, or that a baseline beats.

    Args:
        metrics: by tag.

    >>> list(warnings_about({"nll/test": 2.5, "mass/test": 0.9}))
    ["10.0% of the model's mass lies outside the data's window"]
    """
    if kl_is_negative(metrics):
        yield f"KL is {metrics['kl/test']:.4f}, below zero: this likelihood is wrong, not good"
    gap = metrics.get("solver_gap/test", metrics.get("solver_gap/val", 0.0))
    if abs(gap) > 0.01:
        yield (
            f"the training solver reads NLL {gap:+.4f} nats off the evaluation solver: "
            "the model exploits its solver; train with a tighter one"
        )
    baselines = [metrics[tag] for tag in ("nll_gaussian/test", "nll_kde/test") if tag in metrics]
    if baselines and metrics["nll/test"] > min(baselines):
        yield "a Gaussian or a kernel density estimate beats this flow on held-out points"
    mass = metrics.get("mass/test", 1.0)
    if mass > 1.01:
        yield f"the model's density integrates to {mass:.4f}: it is no density"
    if mass < 0.99:
        yield f"{1 - mass:.1%} of the model's mass lies outside the data's window"


def kl_is_negative(metrics: dict[str, float]) -> bool:
    """Return whether KL is below zero by more than its error: then it is wrong, not good.

    >>> kl_is_negative({"kl/test": -0.1, "kl_error/test": 0.01})
    True
    >>> kl_is_negative({"kl/test": -0.01, "kl_error/test": 0.01})
    False
    """
    return metrics.get("kl/test", 0.0) < -max(3 * metrics.get("kl_error/test", 0.0), 1e-3)
