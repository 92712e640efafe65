"""Is a flow good, and where is it not: tests of its law against points it has not seen."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, ks_2samp, kstest
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.data.splits import Split
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.evaluation.groups import groups
from flowtrain.evaluation.reverse import reverse
from flowtrain.flows.flow import Flow

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # nominal coverages
TAILS = (0.001, 0.01, 0.99, 0.999)  # quantiles of a column that are compared
DOUBT = 0.01  # a smaller p-value, over all tests of a kind together, is no chance
POINTS = 10_000  # of test points and samples, at most
JUDGED = 4_000  # of each that the classifier is shown
FEWEST = 20  # points that are tested
FEWEST_OF_GROUP = 10
WORST = 5  # points that are named


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
        auc_error: the standard error of both.
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
            self.auc - self.auc_floor <= 3 * self.auc_error,
            f"classifier: tells samples from points with AUC {self.auc:.3f}, "
            f"points from points {self.auc_floor:.3f} ± {self.auc_error:.3f}",
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
            yield (
                p_value >= DOUBT,
                f"conditions: of {len(self.by_condition)} the worst is {worst_group.label}, whose "
                f"region of {level:.0%} holds {real:.1%} of its points (p = {p_value:.2g})",
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


def diagnose(
    flow: Flow,
    test: Split,
    train: Split,
    *,
    columns: Sequence[str],
    density: Density | Conditional | None,
    generator: torch.Generator,
    batch_size: int,
) -> Diagnosis:
    """Test a flow against points that it has not seen.

    The region of highest density to level a holds a part a of the model's mass. If the points are
    from the model, a part a of them lies in it, and u = P(log q(X) >= log q(x)) is uniform
    (Hyndman 1996; Talts et al., arXiv 1804.06788). Likewise z has the base's law, a
    classifier cannot tell samples from points (arXiv 1610.06545), and each marginal fits.

    Of p(x | c) samples are drawn at the conditions of the test points, and every test is one of
    the joint law of x and c; the classifier sees both. `by_condition` tests the parts of it.

    Args:
        flow: the model.
        test: points it has not seen, n >= 20; the first `POINTS` are used.
        train: points it has seen: the data's box, and the classifier's floor.
        columns: d names.
        density: that of the points, where it is known.
        generator: draws the samples, and splits what the classifier is shown.
        batch_size: rows at a time.

    Raises:
        ValueError: there are fewer than 20 test points.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> found = diagnose(
    ...     run.flow, run.splits.test, run.splits.train, columns=run.columns,
    ...     density=run.density, generator=torch.Generator().manual_seed(0), batch_size=1024)
    >>> found.points, len(found.coverage), len(found.base)
    (64, 19, 2)
    >>> all(good for good, _ in found.findings())  # after six steps it is no good flow
    False
    """
    if len(test.x) < FEWEST:
        raise ValueError(
            f"a diagnosis needs at least {FEWEST} test points, there are {len(test.x)}"
        )
    test = test.first(POINTS)
    x = test.x
    given = None
    if train.context is not None:  # at conditions of their own law, not of these very points
        rows = torch.randint(len(train.context), (POINTS,), generator=generator)
        given = train.context[rows.to(train.context.device)]
    samples, log_q_samples = flow.sample_with_log_prob(POINTS, generator, given)
    log_q_samples = log_q_samples.cpu().double()

    def to_base(points: Tensor, context: Tensor | None = None) -> Tensor:
        z, log_det = flow.inverse(points, context)
        return torch.cat([z, (flow.base.log_prob(z) + log_det)[:, None]], 1)

    carried = in_batches(to_base, x, batch_size, test.context).cpu().double()
    log_q = carried[:, -1].contiguous()
    uniform = flow.base.cdf(carried[:, :-1])
    box = train.x.amin(0), train.x.amax(0)
    beyond = int(((samples < box[0]) | (samples > box[1])).any(1).sum())
    rate = min(1.0, 2 * x.shape[1] / (len(train.x) + 1))
    order = log_q.argsort()[:WORST]
    shown = _beside(x, test.context)
    auc, auc_floor = (
        classifier_auc(shown, others, generator=generator)
        for others in (_beside(samples, given), _beside(train.x, train.context))
    )
    judged = min(len(x), len(train.x), JUDGED)
    known = {} if density is None else reverse(flow, density, batch_size=batch_size)
    coverage, coverage_p_value = _coverage(log_q, log_q_samples)
    return Diagnosis(
        points=len(x),
        coverage=coverage,
        coverage_p_value=coverage_p_value,
        base=[_gap_from_uniform(column) for column in uniform.numpy().T],
        auc=auc,
        auc_floor=auc_floor,
        auc_error=math.sqrt(
            1 / (6 * judged)
        ),  # of the Mann-Whitney statistic where nothing differs
        beyond=beyond / len(samples),
        beyond_expected=rate,
        # That rate is itself a mean over training sets: three times as much is no sign of a fault.
        beyond_p_value=float(binom.sf(beyond - 1, len(samples), min(1.0, 3 * rate))),
        columns=[_column(name, x[:, i], samples[:, i]) for i, name in enumerate(columns)],
        worst=order.tolist(),
        worst_log_prob=log_q[order].tolist(),
        by_condition=list(_by_condition(test, given, log_q, log_q_samples, uniform)),
        ess=known.get("ess"),
        kl_reverse=known.get("kl_reverse"),
    )


def _by_condition(
    test: Split, given: Tensor | None, log_q: Tensor, log_q_samples: Tensor, uniform: Tensor
) -> Iterator[Group]:
    """Yield how the model fits each group of the test points that is large enough.

    Args:
        test: the n points.
        given: the conditions of the m samples; None where there are none.
        log_q, log_q_samples: (n,) and (m,).
        uniform: of the points in the base, by the base's distribution function, (n, d).
    """
    if given is None or test.condition is None or test.context is None:
        return
    for label, which in groups(test.condition, torch.cat([test.context, given])).items():
        own, drawn = which[: len(log_q)], which[len(log_q) :]
        if min(own.sum(), drawn.sum()) < FEWEST_OF_GROUP:
            continue
        coverage, coverage_p_value = _coverage(log_q[own], log_q_samples[drawn])
        of_each = [_gap_from_uniform(column)[1] for column in uniform[own].numpy().T]
        yield Group(
            label=label,
            points=int(own.sum()),
            nll=-log_q[own].mean().item(),
            coverage=coverage,
            coverage_p_value=coverage_p_value,
            base_p_value=min(1.0, len(of_each) * min(of_each)),
        )


def _coverage(log_q: Tensor, log_q_samples: Tensor) -> tuple[dict[float, float], float]:
    """Return by nominal level the part of the points in that region of the samples' law; p."""
    ordered = log_q_samples.sort().values
    above = 1 - torch.searchsorted(ordered, log_q).double() / len(ordered)  # uniform if q = p
    real = {level: float((above <= level).double().mean()) for level in LEVELS}
    return real, float(ks_2samp(log_q.numpy(), log_q_samples.numpy()).pvalue)


def _beside(points: Tensor, context: Tensor | None) -> Tensor:
    return points if context is None else torch.cat([points, context.to(points)], 1)


def classifier_auc(x: Tensor, y: Tensor, *, generator: torch.Generator) -> float:
    """Return how well boosted trees tell x from y, by AUC on rows they were not trained on.

    Half of the rows train and the others judge, then the other way round.

    Args:
        x: (n, d).
        y: (m, d).
        generator: chooses the rows, as many of both and at most `JUDGED`.

    >>> x = torch.linspace(0, 1, 200)[:, None]
    >>> classifier_auc(x, x + 2, generator=torch.Generator().manual_seed(0))
    1.0
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    n = min(len(x), len(y), JUDGED)
    chosen = [
        each.cpu().double()[torch.randperm(len(each), generator=generator)[:n]] for each in (x, y)
    ]
    rows = torch.cat(chosen).numpy()
    kind = np.repeat([0, 1], n)
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    told = cross_val_predict(trees, rows, kind, cv=2, method="predict_proba")[:, 1]
    return float(roc_auc_score(kind, told))


def _gap_from_uniform(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    found = kstest(values, "uniform")
    return float(found.statistic), float(found.pvalue)


def _column(name: str, points: Tensor, samples: Tensor) -> Column:
    mine, theirs = samples.cpu().double(), points.cpu().double()
    found = ks_2samp(mine.numpy(), theirs.numpy())
    levels = torch.tensor(TAILS, dtype=torch.float64)
    quantiles = zip(
        TAILS, theirs.quantile(levels).tolist(), mine.quantile(levels).tolist(), strict=True
    )
    return Column(
        name=name,
        distance=float(found.statistic),
        p_value=float(found.pvalue),
        quantiles={level: (data, model) for level, data, model in quantiles},
    )
