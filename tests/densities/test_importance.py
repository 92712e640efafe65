"""Weighted draws, against laws whose constant, moments and mode are known."""

import math

import pytest
import torch
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.importance import Gaussian, importance_sample, laplace
from flowtrain.densities.numerics import midpoint

COVARIANCE = [[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]]


def gaussian_energy(x: Tensor) -> Tensor:
    """-U of a Gaussian at 1, 2, 3, without its constant."""
    apart = x - torch.tensor([1.0, 2.0, 3.0]).to(x)
    return -0.5 * (apart @ torch.tensor(COVARIANCE).to(x).inverse() * apart).sum(1)


def skewed(x: Tensor) -> Tensor:
    """-U of two logits, one of them steep, under a normal prior: no Gaussian."""
    fits = torch.nn.functional.logsigmoid(torch.stack([3 * x[:, 0], x[:, 0] - 2 * x[:, 1]]))
    return fits.sum(0) - 0.5 * x.square().sum(1)


def test_laplace_is_exact_for_a_gaussian() -> None:
    found = laplace(gaussian_energy, dim=3)
    torch.testing.assert_close(found.mean, torch.tensor([1.0, 2.0, 3.0]).double())
    torch.testing.assert_close(found.root @ found.root.T, torch.tensor(COVARIANCE).double())


def test_laplace_stands_where_the_slope_is_zero() -> None:
    mode = laplace(skewed, dim=2).mean
    slope = torch.func.grad(lambda x: skewed(x[None])[0])(mode)
    assert slope.abs().max() < 1e-6


def test_draws_of_a_gaussian_know_its_constant_and_moments() -> None:
    start = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    found = importance_sample(gaussian_energy, start, torch.Generator().manual_seed(0))
    log_z = 0.5 * float(torch.logdet(2 * math.pi * torch.tensor(COVARIANCE).double()))
    assert abs(found.log_normalizer - log_z) < 4 * found.log_normalizer_error < 0.01
    moments = found.moments()
    assert moments.mean.tolist() == pytest.approx([1.0, 2.0, 3.0], abs=0.03)
    assert moments.root @ moments.root.T == pytest.approx(torch.tensor(COVARIANCE), abs=0.04)


def test_draws_of_a_skewed_law_agree_with_quadrature() -> None:
    nodes, weights = midpoint(-8.0, 8.0, 400)
    x, mass = torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten()
    p = mass * skewed(x).exp()
    generator = torch.Generator().manual_seed(0)
    found = importance_sample(skewed, laplace(skewed, dim=2), generator)
    assert abs(found.log_normalizer - math.log(float(p.sum()))) < 4 * found.log_normalizer_error
    assert found.log_normalizer_error < 0.01
    mean = (p / p.sum()) @ x
    assert found.moments().mean.tolist() == pytest.approx(mean.tolist(), abs=0.02)
    drawn = found.resample(40_000, generator)
    assert drawn.mean(0).tolist() == pytest.approx(mean.tolist(), abs=0.03)


def test_a_law_that_the_draws_lose_is_refused() -> None:
    def ring(x: Tensor) -> Tensor:  # of a hair's breadth, in six dimensions
        apart: Tensor = (torch.linalg.vector_norm(x, dim=1) - 1) / 1e-3
        return -0.5 * apart.square()

    start = Gaussian(torch.zeros(6).double(), torch.eye(6).double())
    with pytest.raises(ValueError, match="importance sampling cannot follow this law"):
        importance_sample(ring, start, torch.Generator().manual_seed(0))


def test_no_density_of_a_formula_has_an_approximation() -> None:
    assert (Density.approximation, Density.log_normalizer_error) == (None, 0.0)
