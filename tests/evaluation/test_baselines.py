"""The baselines against scipy's densities, closed forms, and data in other units."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde, multivariate_normal
from torch import Tensor

from flowtrain.data.condition import ContextEncoder
from flowtrain.data.sklearn_sets import load_sklearn
from flowtrain.data.splits import split_rows
from flowtrain.densities.curves import Moons
from flowtrain.errors import UserError
from flowtrain.evaluation import baselines
from flowtrain.evaluation.baselines import (
    RIDGE,
    class_gaussian_nll,
    gaussian_nll,
    kde_log_prob,
    kde_nll,
    left_out_bandwidth,
    linear_gaussian_nll,
)

BASELINES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "gaussian": gaussian_nll,
    "kde": lambda train, test: kde_nll(train, test, seed=0),
}


def mixed(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated rows of no common scale, in two clusters."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z[: n // 2] += 3
    mixing = torch.eye(d, dtype=torch.float64) + 0.5 / torch.arange(1, d + 1)
    return z @ mixing * torch.logspace(-0.5, 1, d, dtype=torch.float64) - 7


def best_gaussian(train: Tensor) -> Any:
    """Return scipy's Gaussian of maximum likelihood, with the ridge."""
    fitted = np.cov(train.numpy().T, bias=True).reshape(2 * [train.shape[1]])
    ridge = RIDGE * train.var(0, correction=0)
    return multivariate_normal(train.mean(0).numpy(), fitted + np.diag(ridge.numpy()))


@pytest.mark.parametrize("d", [1, 2, 10])
def test_the_gaussian_is_scipy_s(d: int) -> None:
    train, test = mixed(200, d), mixed(90, d, seed=1)
    nll = -best_gaussian(train).logpdf(test.numpy())
    found = gaussian_nll(train, test)
    assert found == pytest.approx(nll.mean(), rel=1e-9)


def test_no_other_gaussian_is_likelier_on_the_training_rows() -> None:
    train = mixed(100, 3)
    mean, covariance = train.mean(0).numpy(), np.cov(train.numpy().T, bias=True)
    best = gaussian_nll(train, train)
    for scale, shift in [(1.02, 0.0), (0.98, 0.0), (1.0, 1e-3)]:
        other = multivariate_normal(mean + shift, covariance * scale)
        assert -other.logpdf(train.numpy()).mean() > best


def test_a_column_that_follows_from_another_gets_the_ridge() -> None:
    x = mixed(300, 2)
    train = torch.cat([x, x[:, :1] * 3 - 5], dim=1)
    expected = -best_gaussian(train).logpdf(train.numpy()).mean()
    assert gaussian_nll(train, train) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("bandwidth", [0.05, 0.7])
def test_the_kernel_density_is_scipy_s(d: int, bandwidth: float) -> None:
    centres = mixed(80, d)
    # scipy's kernels have the covariance of the centres, ours are round: make that the identity.
    spread = torch.linalg.cholesky(torch.from_numpy(np.cov(centres.numpy().T).reshape(d, d)))
    centres = torch.linalg.solve_triangular(spread, (centres - centres.mean(0)).T, upper=False).T
    x = centres[:30] + 0.1
    expected = gaussian_kde(centres.numpy().T, bw_method=bandwidth).logpdf(x.numpy().T)
    assert kde_log_prob(centres, x, bandwidth).numpy() == pytest.approx(expected, abs=1e-9)


def test_the_kernel_density_is_in_the_data_s_units() -> None:
    """Columns that do not correlate: scipy's kernels stretch along them as ours do."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 2).double()
    z = torch.cat([signs * (1 + step / 10) for step in range(20)])
    train = z * torch.tensor([0.01, 500.0]) + 3
    test = train[torch.randperm(80, generator=generator)[:25]] + torch.tensor([0.001, 40.0])
    std = z.std(0, correction=0)
    bandwidth = left_out_bandwidth((z - z.mean(0)) / std)
    scaled = bandwidth * math.sqrt(79 / 80)  # scipy divides by n - 1
    kernels = gaussian_kde(train.numpy().T, bw_method=scaled)
    nll = -kernels.logpdf(test.numpy().T)
    found = kde_nll(train, test, seed=0)
    assert found == pytest.approx(nll.mean(), abs=1e-9)


def test_the_bandwidth_is_the_likeliest_by_an_explicit_loop() -> None:
    x = mixed(60, 2)
    x = (x - x.mean(0)) / x.std(0)

    def left_out_nll(bandwidth: float) -> float:
        others = [torch.cat([x[:i], x[i + 1 :]]) for i in range(60)]
        return -sum(
            kde_log_prob(rest, x[i : i + 1], bandwidth).item() for i, rest in enumerate(others)
        )

    grid = np.geomspace(0.01, 3, 150)
    best = grid[np.argmin([left_out_nll(bandwidth) for bandwidth in grid])]
    assert left_out_bandwidth(x) == pytest.approx(best, rel=0.04)


def test_the_bandwidth_of_a_gaussian_is_the_one_of_theory() -> None:
    """Silverman's (4 / (d + 2) n)^(1 / (d + 4)) is least squares', likelihood's is near."""
    x = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert left_out_bandwidth(x) == pytest.approx(4000 ** (-1 / 6), rel=0.25)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("units", "offset"), [([1e-3, 7.0, 2e4], 11.0), ([1e-300, 1.0, 1e300], 0.0)]
)
def test_other_units_shift_the_nll_by_the_log_of_the_scale(
    name: str, units: list[float], offset: float
) -> None:
    train, test = mixed(150, 3), mixed(70, 3, seed=1)
    scale = torch.tensor(units, dtype=torch.float64)
    plain = BASELINES[name](train, test)
    scaled = BASELINES[name](train * scale + offset, test * scale + offset)
    assert scaled - plain == pytest.approx(float(scale.log().sum()), abs=1e-8)


@pytest.mark.parametrize("name", BASELINES)
def test_a_density_is_not_likelier_by_a_baseline_than_by_its_own_density(name: str) -> None:
    moons = Moons(noise=0.1, scale=2.0, shift=[-1.0, -0.2])
    generator = torch.Generator().manual_seed(0)
    train, test = moons.sample(2000, generator), moons.sample(500, generator)
    truth = -moons.log_prob(test).mean().item()
    gap = BASELINES[name](train, test) - truth
    assert {"gaussian": 0.7, "kde": 0.02}[name] < gap < {"gaussian": 1.1, "kde": 0.15}[name]


@pytest.mark.parametrize("name", BASELINES)
def test_digits_are_scored(name: str) -> None:
    values = load_sklearn("digits").values
    rows = split_rows(len(values), val=0.1, test=0.1, seed=0)
    found = BASELINES[name](values[rows["train"]], values[rows["test"]])
    assert -70 < found < -30  # the uniform density has 0


@pytest.mark.parametrize("name", BASELINES)
def test_a_constant_column_is_refused(name: str) -> None:
    train = mixed(20, 3)
    train[:, 1] = 2.0
    with pytest.raises(UserError, match=r"column 1 \(from 0\) is constant over the 20 training"):
        BASELINES[name](train, train)


def test_a_large_set_is_thinned_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "KERNELS", 100)
    monkeypatch.setattr(baselines, "TEST", 50)
    train, test = mixed(400, 2), mixed(200, 2, seed=1)
    first, again, other = (kde_nll(train, test, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first == pytest.approx(other, abs=0.2)


@pytest.mark.parametrize("name", BASELINES)
def test_single_precision_is_no_less_exact(name: str) -> None:
    train, test = (1000 + mixed(100, 1, seed=seed).float() for seed in (0, 1))
    single, double = BASELINES[name](train, test), BASELINES[name](train.double(), test.double())
    assert single == double


# --- given a condition --------------------------------------------------------------------------


def classes(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows of two classes, whose means and covariances differ, and their one-hot class."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(n) % 2
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    z[:, 1] += 0.8 * z[:, 0]
    x = torch.where(kind[:, None] == 1, 5 + 0.3 * z.flip(1), z) * torch.tensor([1.0, 0.1, 20.0])
    return x, torch.nn.functional.one_hot(kind).double()


def test_the_gaussian_of_each_class_is_scipy_s_where_rows_are_many() -> None:
    (train, given), (test, test_given) = classes(6_000), classes(300, seed=1)
    found = class_gaussian_nll(train, test, given, test_given)
    assert found is not None
    nll = np.empty(300)
    for kind in range(2):
        own, own_test = given[:, kind] == 1, test_given[:, kind] == 1
        nll[own_test.numpy()] = -best_gaussian(train[own]).logpdf(test[own_test].numpy())
    assert found == pytest.approx(nll.mean(), abs=5e-3)  # some shrinkage is left
    linear = linear_gaussian_nll(train, test, given, test_given)
    assert found + 0.5 < linear < gaussian_nll(train, test) - 0.5


def test_the_linear_gaussian_is_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    noise = mixed(400, 3)
    x = 1e6 + given @ torch.tensor([[1.0, 2.0, 0.0], [0.0, -3.0, 5.0]]).double() + noise
    design = np.column_stack([given.numpy(), np.ones(400)])
    train, test = slice(300), slice(300, None)
    slope = np.linalg.lstsq(design[train], x[train].numpy(), rcond=None)[0]
    residual = x.numpy() - design @ slope
    expected = best_gaussian(torch.from_numpy(residual[train])).logpdf(residual[test])
    found = linear_gaussian_nll(x[train], x[test], given[train], given[test])
    assert found == pytest.approx(-expected.mean(), abs=1e-6)


def test_one_hot_classes_with_one_covariance_are_linear() -> None:
    (train, given), (test, test_given) = classes(200), classes(90, seed=1)
    means = torch.stack([train[given[:, kind] == 1].mean(0) for kind in range(2)])
    pooled = best_gaussian(train - given @ means)
    expected = -pooled.logpdf((test - test_given @ means).numpy()).mean()
    assert linear_gaussian_nll(train, test, given, test_given) == pytest.approx(expected)


def test_few_rows_of_a_class_do_no_harm_and_a_single_one_is_no_class() -> None:
    table = load_sklearn("digits", condition="target")
    rows = split_rows(len(table.values), val=0.1, test=0.1, seed=0)
    context = ContextEncoder.fit(table.given).encode(table.given)
    parts = [each[rows[name]] for each in (table.values, context) for name in ("train", "test")]
    linear, by_class = linear_gaussian_nll(*parts), class_gaussian_nll(*parts)
    assert by_class is not None
    assert by_class < linear < gaussian_nll(*parts[:2])
    train, test, given, test_given = parts
    lone = torch.cat([given[:1], torch.zeros_like(given[1:])])
    assert class_gaussian_nll(train, test, lone, lone[: len(test)]) is None
    assert class_gaussian_nll(train, test, torch.zeros_like(given), test_given) is None


def test_a_class_may_have_no_test_row_two_rows_or_equal_rows() -> None:
    (train, given), (test, test_given) = classes(200), classes(100, seed=1)
    one = test_given[:, 0] == 1
    found = class_gaussian_nll(train, test[one], given, test_given[one])
    both = class_gaussian_nll(train, test, given, test_given)
    assert found is not None
    assert both is not None
    other = class_gaussian_nll(train, test[~one], given, test_given[~one])
    assert other is not None
    assert both == pytest.approx((found + other) / 2)
    train[given[:, 1] == 1] = train[given[:, 1] == 1][:1].clone()
    equal = class_gaussian_nll(train, test, given, test_given)
    assert equal is not None
    assert math.isfinite(equal)
    normal = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rare = (torch.arange(300) % 150 == 0).double()[:, None]  # two rows of 300
    found = class_gaussian_nll(normal, normal, rare, rare)
    assert found is not None
    assert found < gaussian_nll(normal, normal) + 0.1


@pytest.mark.parametrize("baseline", [linear_gaussian_nll, class_gaussian_nll])
def test_a_condition_s_baselines_refuse_a_constant_column(baseline: Callable[..., Any]) -> None:
    train, given = classes(20)
    train[:, 1] = 2.0
    with pytest.raises(UserError, match=r"column 1 \(from 0\) is constant over the 20 training"):
        baseline(train, train, given, given)
