"""What the tests of a flow found, and what that says in words."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

DOUBT = 0.01  # a smaller p-value, over all tests of a kind together, is no chance
# Of perfect models the gap between the two AUCs has a deviation of 1.63 standard errors of one, and
# 0.9 % of 570 gaps are larger than this, 2.33 deviations; 4 % are larger than 3 standard errors.
GAP = 2.33 * 1.63


@dataclass(frozen=True)
class Column:
    """How the model's marginal of one column fits.

    Attributes:
        name: of the column.
        distance: the largest gap between the distribution functions of samples and points.
        p_value: of that gap, were both from one law (Kolmogorov-Smirnov).
        quantiles: by level, the points' and the samples'.

    >>> Column("height", distance=0.02, p_value=0.4, quantiles={0.99: (2.3, 2.4)}).name
    'height'
    """

    name: str
    distance: float
    p_value: float
    quantiles: dict[float, tuple[float, float]]


@dataclass(frozen=True)
class Group:
    """How the model fits the points of a condition, or of a part of its range.

    Attributes:
        label: of the group, as species=cat.
        points: of it that were tested.
        nll: of these points, in nats.
        coverage: by nominal level, as a diagnosis has it, by the samples of the group.
        coverage_p_value: of that.
        base_p_value: of the coordinate of z that is farthest from the base's law, over all of them.

    >>> Group("species=cat", 120, nll=2.5, coverage={0.5: 0.48}, coverage_p_value=0.4,
    ...       base_p_value=0.001).p_value
    0.002
    """

    label: str
    points: int
    nll: float
    coverage: dict[float, float]
    coverage_p_value: float
    base_p_value: float

    @property
    def p_value(self) -> float:
        """Of both tests together."""
        return min(1.0, 2 * min(self.coverage_p_value, self.base_p_value))


@dataclass(frozen=True)
class Diagnosis:
    """What the tests of a flow found; probabilities and distances are fractions.

    Attributes:
        points: how many were tested.
        coverage: by nominal level, the part of the points in the model's highest-density region.
        coverage_p_value: of the gap between log q of points and of samples (Kolmogorov-Smirnov).
        base: by coordinate of z, the largest gap of the points from the base's law, its p-value.
        auc: of a classifier that tells points from samples: 0.5 where it cannot.
        auc_floor: of the same classifier between test and training points.
        auc_error: the standard error of either, were both kinds from one law.
        beyond: the part of the samples outside the box of the training points.
        beyond_expected: the part of new points outside it: 1 / (m + 1) on each of its 2 d sides.
        beyond_p_value: of so many samples outside, or more, at three times that rate.
        columns: of the model's marginals.
        worst: indices of the least likely test points.
        worst_log_prob: their log q in nats.
        by_condition: how it fits where something is given of the points; by columns, so that a
            point counts in several.
        ess: effective sample size of the weights p / q, where the density is known.
        kl_reverse: KL(model | data) in nats, where it is known and finite.

    >>> found = Diagnosis(
    ...     points=500, coverage={0.5: 0.41}, coverage_p_value=1e-4, base=[(0.02, 0.6)], auc=0.51,
    ...     auc_floor=0.5, auc_error=0.01, beyond=0.0, beyond_expected=0.001, beyond_p_value=1.0,
    ...     columns=[Column("height", 0.02, 0.4, {})], worst=[3], worst_log_prob=[-9.5])
    >>> next(found.findings())
    (False, 'coverage: the region of 50% holds 41.0% of the points (p = 0.0001)')
    """

    points: int
    coverage: dict[float, float]
    coverage_p_value: float
    base: list[tuple[float, float]]
    auc: float
    auc_floor: float
    auc_error: float
    beyond: float
    beyond_expected: float
    beyond_p_value: float
    columns: list[Column]
    worst: list[int]
    worst_log_prob: list[float]
    by_condition: list[Group] = field(default_factory=list)
    ess: float | None = None
    kl_reverse: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain containers."""
        return asdict(self)

    def findings(self) -> Iterator[tuple[bool, str]]:
        """Yield for each test whether the flow passes, and what was found, in words."""
        nominal, real = _widest(self.coverage)
        yield (
            self.coverage_p_value >= DOUBT,
            f"coverage: the region of {nominal:.0%} holds {real:.1%} of the points "
            f"(p = {self.coverage_p_value:.2g})",
        )
        worst, (gap, p_value) = max(enumerate(self.base), key=lambda pair: pair[1][0])
        p_value = min(1.0, p_value * len(self.base))
        yield (
            p_value >= DOUBT,
            f"base: z{worst} of the points is off the base's law by at most {gap:.3f} "
            f"(p = {p_value:.2g})",
        )
        yield (
            self.auc - self.auc_floor <= GAP * self.auc_error,
            f"classifier: tells samples from points with AUC {self.auc:.3f}, "
            f"points from points {self.auc_floor:.3f}, each ± {self.auc_error:.3f}",
        )
        column = max(self.columns, key=lambda column: column.distance)
        p_value = min(1.0, column.p_value * len(self.columns))
        yield (
            p_value >= DOUBT,
            f"marginals: {column.name} is off by at most {column.distance:.3f} (p = {p_value:.2g})",
        )
        yield (
            self.beyond_p_value >= DOUBT,
            f"tails: {self.beyond:.3%} of the samples lie beyond all training points, "
            f"of new points {100 * self.beyond_expected:.1g}% would",
        )
        if self.by_condition:
            worst_group = min(self.by_condition, key=lambda group: group.p_value)
            p_value = min(1.0, len(self.by_condition) * worst_group.p_value)
            level, real = _widest(worst_group.coverage)
            tests = 2 * len(self.by_condition)
            yield (
                p_value >= DOUBT,
                f"conditions: of {len(self.by_condition)} the worst is {worst_group.label}, whose "
                f"region of {level:.0%} holds {real:.1%} of its points "
                f"(p = {p_value:.2g}, corrected for {tests} tests)",
            )
        if self.ess is not None:
            infinite = self.kl_reverse is None
            yield (
                self.ess >= 0.9 and not infinite,
                f"weights: effective sample size {self.ess:.1%}, KL(model | data) "
                + ("infinite" if infinite else f"{self.kl_reverse:.4f} nats"),
            )


def _widest(coverage: dict[float, float]) -> tuple[float, float]:
    """Return the nominal level whose real one is farthest from it, and that."""
    return max(coverage.items(), key=lambda pair: abs(pair[1] - pair[0]))
