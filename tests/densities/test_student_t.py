"""The Student-t law against torch's, its closed entropy, and a quadrature of its tails."""

import math

import pytest
import torch
from scipy.stats import kstest, multivariate_t
from scipy.stats import t as student

from flowtrain.densities.student_t import StudentT

CASES = [(dim, df) for dim in (1, 2) for df in (1.0, 2.0, 3.0, 30.0)]


@pytest.mark.parametrize(("dim", "df"), CASES)
def test_the_quadrature_sees_the_tails(dim: int, df: float) -> None:
    density = StudentT(dim=dim, df=df, scale=0.5)
    x, weights = density.quadrature(256)
    assert x.shape == (256**dim, dim)
    log_p = density.log_prob(x)
    assert float(weights @ log_p.exp()) == pytest.approx(1, abs=2e-7)
    assert -float(weights @ (log_p * log_p.exp())) == pytest.approx(density.entropy, abs=2e-6)


@pytest.mark.parametrize(("dim", "df"), CASES)
def test_its_density_and_entropy_are_scipy_s(dim: int, df: float) -> None:
    density = StudentT(dim=dim, df=df, scale=0.5)
    theirs = multivariate_t(shape=0.25 * torch.eye(dim).numpy(), df=df)
    x = 5 * torch.randn(50, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.as_tensor(theirs.logpdf(x.numpy()))
    torch.testing.assert_close(density.log_prob(x), expected, rtol=0, atol=1e-10)
    assert density.entropy == pytest.approx(float(theirs.entropy()), abs=1e-10)


@pytest.mark.parametrize("dim", [1, 2])
def test_samples_have_its_marginals_and_its_tail(dim: int) -> None:
    density = StudentT(dim=dim, df=2.0, scale=3.0)
    x = density.sample(50_000, torch.Generator().manual_seed(0))
    for column in x.T:
        assert kstest(column.numpy(), student(df=2.0, scale=3.0).cdf).pvalue > 1e-3
    if dim == 2:
        beyond = float((x.norm(dim=1) > density.window[1][0]).double().mean())
        assert beyond == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / len(x)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 3}, "dim 1 or 2, got 3"),
        ({"df": 0.5}, "df must be at least 1, got 0.5"),
        ({"df": 1e6}, r"df must be at most 1000, got 1e\+06"),
        ({"scale": 0.0}, "scale must be > 0, got 0"),
    ],
)
def test_bad_parameters_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudentT(**{"dim": 2, "df": 3.0, "scale": 1.0, **settings})  # type: ignore[arg-type]
