"""What a law known up to a constant lacks, the constant, samples and moments: by weighted draws."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.numerics import draw_kinds

LogProb = Callable[[Tensor], Tensor]

DEGREES = 50.0  # of freedom of the draws: their tails bound the weights of a log-concave law
DRAWS, ROUNDS = 2**15, 3  # each round draws by the moments that the last one found
LAST = 2**17  # draws that are kept
LEAST_ESS = 0.1  # of the draws; below it the largest weights have not been seen


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian, by its mean (d,) and a lower triangular root of its covariance, (d, d).

    >>> Gaussian(torch.zeros(2), torch.eye(2)).sample(5, torch.Generator()).shape
    torch.Size([5, 2])
    """

    mean: Tensor
    root: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, (n, d)."""
        z = torch.randn(n, len(self.mean), dtype=self.mean.dtype, generator=generator)
        return self.mean + z @ self.root.T


@dataclass(frozen=True)
class Weighted:
    """Points that stand for a law known up to a constant, each with its weight.

    Args:
        points: (n, d).
        log_weight: of each, log of the unnormalised density over that of the draws, (n,).

    >>> even = Weighted(torch.randn(100, 2, dtype=torch.float64), torch.full((100,), math.log(3)))
    >>> round(even.log_normalizer, 4), round(even.ess, 4)
    (1.0986, 1.0)
    """

    points: Tensor
    log_weight: Tensor

    @cached_property
    def shares(self) -> Tensor:
        """The weights, (n,), of sum one."""
        return self.log_weight.softmax(0)

    @property
    def log_normalizer(self) -> float:
        """log Z, the log of the unnormalised density's integral, in nats."""
        return float(self.log_weight.logsumexp(0)) - math.log(len(self.points))

    @property
    def log_normalizer_error(self) -> float:
        """Standard error of log Z, in nats."""
        return math.sqrt(max(1 / self.ess - 1, 0.0) / len(self.points))

    @property
    def ess(self) -> float:
        """Effective sample size, a fraction."""
        return float(1 / (len(self.points) * self.shares.square().sum()))

    def moments(self) -> Gaussian:
        """Return the Gaussian with the law's mean and covariance."""
        mean = self.shares @ self.points
        apart = self.points - mean
        return Gaussian(mean, torch.linalg.cholesky((self.shares[:, None] * apart).T @ apart))

    def resample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n of the points by their weights, with replacement, (n, d)."""
        rows = draw_kinds(self.shares, n, generator)
        return self.points[rows]


def laplace(log_p: LogProb, dim: int) -> Gaussian:
    """Return Laplace's approximation: the mode, and the curvature there as inverse covariance.

    Args:
        log_p: (n, d) -> (n,) in float64, twice differentiable, with a single mode.
        dim: d.

    >>> found = laplace(lambda x: -2 * (x - 1).square().sum(1), dim=2)  # of N(1, 1/4)
    >>> found.mean.round(decimals=6).tolist(), found.root.diagonal().tolist()
    ([1.0, 1.0], [0.5, 0.5])
    """
    from scipy.optimize import minimize  # 0.2 s that other densities need not wait

    def energy(x: Tensor) -> Tensor:
        return -log_p(x[None])[0]

    def with_slope(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.from_numpy(x).requires_grad_()
        value = energy(at)
        return value.item(), torch.autograd.grad(value, at)[0].numpy()

    def curvature(x: NDArray[np.float64]) -> Tensor:
        found: Tensor = torch.autograd.functional.hessian(energy, torch.from_numpy(x))
        return found

    mode = minimize(
        with_slope,
        np.zeros(dim),
        jac=True,
        hess=lambda x: curvature(x).numpy(),
        method="trust-exact",
        options={"gtol": 1e-8},
    ).x
    return Gaussian(
        torch.from_numpy(mode), torch.linalg.cholesky(torch.linalg.inv(curvature(mode)))
    )


@torch.no_grad()
def importance_sample(log_p: LogProb, start: Gaussian, generator: torch.Generator) -> Weighted:
    """Sample a law by importance, from draws that adapt to it (Oh and Berger 1992).

    Each round draws from a Student-t law with the mean and covariance of the last round's weighted
    draws. The mean weight is an unbiased estimate of Z.

    Args:
        log_p: (n, d) -> (n,) in float64, known up to a constant.
        start: near the law, as Laplace's approximation is.
        generator: of the draws.

    Raises:
        ValueError: the draws never come near the law, so that nothing they say can be trusted.

    >>> log_p = lambda x: -x.square().sum(1) / 2  # Z = 2π
    >>> near = Gaussian(torch.ones(2).double(), torch.eye(2).double())
    >>> found = importance_sample(log_p, near, torch.Generator().manual_seed(0))
    >>> abs(found.log_normalizer - math.log(2 * math.pi)) < 5 * found.log_normalizer_error
    True
    """
    gaussian = start
    for _ in range(ROUNDS):
        gaussian = _draw(log_p, gaussian, DRAWS, generator).moments()
    found = _draw(log_p, gaussian, LAST, generator)
    if not found.ess >= LEAST_ESS:
        raise ValueError(
            f"importance sampling cannot follow this law: the effective sample size is "
            f"{found.ess:.2g} of its draws, at least {LEAST_ESS:g} is needed"
        )
    return found


def _draw(log_p: LogProb, near: Gaussian, n: int, generator: torch.Generator) -> Weighted:
    """Draw n weighted points from a Student-t law with the mean and root of a Gaussian."""
    dim = len(near.mean)
    z = torch.randn(n, dim, dtype=torch.float64, generator=generator)
    freedom = torch.full((n,), DEGREES / 2, dtype=torch.float64)
    # Two gammas' worth of chance in one: a chi-squared variable is twice a gamma.
    stretch = DEGREES / (2 * torch._standard_gamma(freedom, generator=generator))
    squares = stretch * z.square().sum(1)
    constant = (
        math.lgamma((DEGREES + dim) / 2)
        - math.lgamma(DEGREES / 2)
        - dim / 2 * math.log(math.pi * DEGREES)
        - float(near.root.diagonal().log().sum())
    )
    log_q = constant - (DEGREES + dim) / 2 * torch.log1p(squares / DEGREES)
    points = near.mean + (stretch.sqrt()[:, None] * z) @ near.root.T
    return Weighted(points, by_rows(log_p, points, width=512) - log_q)
