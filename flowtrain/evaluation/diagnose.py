"""Is a flow good, and where is it not: tests of its law against points it has not seen."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, ks_2samp, kstest
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.data.splits import Split
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.evaluation.diagnosis import Column, Diagnosis, Group
from flowtrain.evaluation.groups import groups
from flowtrain.evaluation.reverse import reverse
from flowtrain.flows.flow import Flow

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # nominal coverages
TAILS = (0.001, 0.01, 0.99, 0.999)  # quantiles of a column that are compared
POINTS = 10_000  # of test points and samples, at most
JUDGED = 4_000  # of each that the classifier is shown
FEWEST = 20  # points that are tested
FEWEST_OF_GROUP = 10
WORST = 5  # points that are named


@dataclass(frozen=True)
class Evidence:
    """What the tests were made of, for a picture of them.

    Attributes:
        u: the test points carried to the base, by its distribution function, (n, d).
        points: that were tested, (n, d).
        samples: of the model, that they were held against, (m, d).

    >>> Evidence(u=torch.zeros(5, 2), points=torch.ones(5, 2), samples=torch.ones(9, 2)).u.shape
    torch.Size([5, 2])
    """

    u: Tensor
    points: Tensor
    samples: Tensor


def diagnose(
    flow: Flow,
    test: Split,
    train: Split,
    *,
    columns: Sequence[str],
    density: Density | Conditional | None,
    generator: torch.Generator,
    batch_size: int,
) -> tuple[Diagnosis, Evidence]:
    """Test a flow against points that it has not seen.

    The region of highest density to level a holds a part a of the model's mass. If the points are
    from the model, a part a of them lies in it, and u = P(log q(X) >= log q(x)) is uniform
    (Hyndman 1996; Talts et al., arXiv 1804.06788). Likewise z has the base's law, a
    classifier cannot tell samples from points (arXiv 1610.06545), and each marginal fits.

    Of p(x | c) samples are drawn at conditions of training points, and every test is one of the
    joint law of x and c; the classifier sees both. `by_condition` tests the parts of it.

    Args:
        flow: the model.
        test: points it has not seen, n >= 20; the first `POINTS` are used.
        train: points it has seen: the data's box, and the classifier's floor.
        columns: d names.
        density: that of the points, where it is known.
        generator: draws the samples, and splits what the classifier is shown.
        batch_size: rows at a time.

    Returns:
        what the tests found, and what they were made of.

    Raises:
        ValueError: there are fewer than 20 test points.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> found, evidence = diagnose(
    ...     run.flow, run.splits.test, run.splits.train, columns=run.columns,
    ...     density=run.density, generator=torch.Generator().manual_seed(0), batch_size=1024)
    >>> found.points, len(found.coverage), evidence.u.shape
    (64, 19, torch.Size([64, 2]))
    >>> all(good for good, _ in found.findings())  # after six steps it is no good flow
    False
    """
    if len(test.x) < FEWEST:
        raise ValueError(
            f"a diagnosis needs at least {FEWEST} test points, there are {len(test.x)}"
        )
    test = test.first(POINTS)
    given = train.draw_context(POINTS, generator)  # of their own law, not of these very points
    samples, log_q_samples = flow.sample_with_log_prob(POINTS, generator, given)
    log_q_samples = log_q_samples.cpu().double()
    log_q, uniform = _carried(flow, test, batch_size=batch_size)
    coverage, coverage_p_value = _coverage(log_q, log_q_samples)
    beyond, beyond_expected, beyond_p_value = _beyond(samples, train.x)
    shown = _beside(test.x, test.context)
    auc, auc_floor = (
        classifier_auc(shown, others, generator=generator)
        for others in (_beside(samples, given), _beside(train.x, train.context))
    )
    judged = min(len(test.x), len(train.x), JUDGED)
    worst = log_q.argsort()[:WORST]
    known = {} if density is None else reverse(flow, density, batch_size=batch_size)
    found = Diagnosis(
        points=len(test.x),
        coverage=coverage,
        coverage_p_value=coverage_p_value,
        base=[_gap_from_uniform(column) for column in uniform.numpy().T],
        auc=auc,
        auc_floor=auc_floor,
        auc_error=math.sqrt(1 / (6 * judged)),  # of Mann and Whitney's U where nothing differs
        beyond=beyond,
        beyond_expected=beyond_expected,
        beyond_p_value=beyond_p_value,
        columns=[_column(name, test.x[:, i], samples[:, i]) for i, name in enumerate(columns)],
        worst=worst.tolist(),
        worst_log_prob=log_q[worst].tolist(),
        by_condition=list(_by_condition(test, given, log_q, log_q_samples, uniform)),
        ess=known.get("ess"),
        kl_reverse=known.get("kl_reverse"),
    )
    return found, Evidence(uniform, test.x, samples)


def _carried(flow: Flow, points: Split, *, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return log q of n points in nats, (n,), and the base's distribution function at z, (n, d)."""

    def to_base(x: Tensor, context: Tensor | None = None) -> Tensor:
        z, log_det = flow.inverse(x, context)
        return torch.cat([z, (flow.base.log_prob(z) + log_det)[:, None]], 1)

    carried = in_batches(to_base, points.x, batch_size, points.context).cpu().double()
    return carried[:, -1].contiguous(), flow.base.cdf(carried[:, :-1])


def _beyond(samples: Tensor, train: Tensor) -> tuple[float, float, float]:
    """Return the part of samples outside the box of training points, that expected, and p."""
    outside = int(((samples < train.amin(0)) | (samples > train.amax(0))).any(1).sum())
    rate = min(1.0, 2 * train.shape[1] / (len(train) + 1))
    # That rate is itself a mean over training sets: three times as much is no sign of a fault.
    p_value = float(binom.sf(outside - 1, len(samples), min(1.0, 3 * rate)))
    return outside / len(samples), rate, p_value


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
