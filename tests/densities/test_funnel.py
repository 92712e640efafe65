"""Neal's funnel, whose ends no even grid sees: it is tested in the coordinates of its Gaussians."""

import math

import pytest
import torch
from scipy.stats import kstest

from flowtrain.densities.funnel import Funnel


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_quadrature_sees_both_ends(spread: float) -> None:
    funnel = Funnel(dim=2, spread=spread)
    x, weights = funnel.quadrature(64)
    log_p = funnel.log_prob(x)
    assert x.dtype == weights.dtype == torch.float64
    assert float(weights @ log_p.exp()) == pytest.approx(1, abs=1e-7)
    assert -float(weights @ (log_p * log_p.exp())) == pytest.approx(funnel.entropy, abs=1e-6)
    assert float(x[:, 0].abs().max()) > 5.8 * spread


@pytest.mark.parametrize("dim", [2, 10])
def test_samples_are_its_gaussians_and_log_prob_is_theirs(dim: int) -> None:
    funnel = Funnel(dim=dim, spread=3.0)
    x = funnel.sample(20_000, torch.Generator().manual_seed(0))
    assert x.shape == (20_000, dim)
    v, rest = x[:, :1] / 3, x[:, 1:] / (x[:, :1] / 2).exp()
    for column in torch.cat([v, rest], 1).T:
        assert kstest(column.numpy(), "norm").pvalue > 1e-3
    surprise = -funnel.log_prob(x)
    error = float(surprise.std()) / len(x) ** 0.5
    assert float(surprise.mean()) == pytest.approx(funnel.entropy, abs=4 * error)
    deviation = torch.cat([torch.full_like(v, 3), (x[:, :1] / 2).exp().expand(-1, dim - 1)], 1)
    expected = torch.distributions.Normal(0, deviation).log_prob(x).sum(1)
    torch.testing.assert_close(funnel.log_prob(x), expected)


def test_its_entropy_is_that_of_as_many_gaussians() -> None:
    assert Funnel(dim=2, spread=1.0).entropy == pytest.approx(1 + math.log(2 * math.pi))
    assert Funnel(dim=10, spread=3.0).entropy == pytest.approx(15.287998, abs=1e-5)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 dimensions, got 1"):
        Funnel(dim=1, spread=3.0)
    with pytest.raises(ValueError, match="spread must be > 0"):
        Funnel(dim=2, spread=0.0)
    with pytest.raises(ValueError, match="wide"):
        Funnel(dim=2, spread=30.0)
