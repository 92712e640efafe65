"""Mixtures of Gaussians."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import REACH, Density, box_around, require_positive


class GaussianMixture(Density):
    """A mixture of k Gaussians, Σ_k w_k N(x; m_k, C_k).

    Args:
        means: k points, on a line or in the plane.
        covariances: k symmetric positive definite matrices, 1 x 1 or 2 x 2.
        weights: k positive numbers, normalised by their sum.

    Raises:
        ValueError: shapes disagree, a weight is not positive or nothing beside the others, or a
            covariance is not symmetric positive definite.

    >>> identity = [[1.0, 0.0], [0.0, 1.0]]
    >>> mixture = GaussianMixture(means=[[0.0, 0.0]], covariances=[identity], weights=[1.0])
    >>> round(mixture.entropy, 4)  # 1 + log 2π
    2.8379
    >>> mixture.log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    >>> line = GaussianMixture(means=[[3.0]], covariances=[[[4.0]]], weights=[1.0])
    >>> round(line.entropy, 4)  # ½ log 2πe + log 2
    2.1121
    """

    def __init__(
        self,
        *,
        means: Sequence[Sequence[float]],
        covariances: Sequence[Sequence[Sequence[float]]],
        weights: Sequence[float],
    ) -> None:
        if not weights:
            raise ValueError("weights must hold at least one weight, got []")
        require_positive(**{f"weights[{i}]": value for i, value in enumerate(weights)})
        count = len(weights)
        self.dim = 1 if means and len(means[0]) == 1 else 2
        self.means = _as_tensor("means", means, (count, self.dim))
        covariance = _as_tensor("covariances", covariances, (count, self.dim, self.dim))
        factors, failed = torch.linalg.cholesky_ex(covariance)
        for i in range(count):
            if failed[i] or not torch.equal(covariance[i], covariance[i].T):
                raise ValueError(
                    f"covariances[{i}] must be symmetric positive definite, "
                    f"got {covariance[i].tolist()}"
                )
        weight = torch.tensor(weights, dtype=torch.float64)
        weight = weight / weight.max()  # the sum of huge ones would overflow
        self.weights = weight / weight.sum()
        if (self.weights == 0).any():
            raise ValueError(
                f"weights[{int(self.weights.argmin())}] is nothing beside the largest; leave it out"
            )
        self.covariances = covariance
        self._factors: Tensor = factors
        self._whiten: Tensor = torch.linalg.inv(factors)
        log_volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        log_volume = log_volume + self.dim / 2 * math.log(2 * math.pi)
        self._offset: Tensor = self.weights.log() - log_volume
        sds = covariance.diagonal(dim1=1, dim2=2).sqrt()
        smallest = float(torch.linalg.eigvalsh(covariance).min())
        super().__init__(window=box_around(self.means, REACH * sds), resolution=math.sqrt(smallest))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        edges = self.weights.cumsum(0)[:-1]
        u = torch.rand(n, dtype=torch.float64, generator=generator)
        component = torch.searchsorted(edges, u, right=True)
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=generator)
        return self.means[component] + torch.einsum("nij,nj->ni", self._factors[component], z)

    def components(self) -> Sequence[tuple[float, Density]]:
        return [
            (weight, GaussianMixture(means=[mean], covariances=[covariance], weights=[1.0]))
            for weight, mean, covariance in zip(
                self.weights.tolist(), self.means.tolist(), self.covariances.tolist(), strict=True
            )
        ]

    def log_prob(self, x: Tensor) -> Tensor:
        means, whiten, offset = self.means.to(x), self._whiten.to(x), self._offset.to(x)

        def of_rows(rows: Tensor) -> Tensor:
            z = torch.einsum("kij,nkj->nki", whiten, rows[:, None] - means)
            return (offset - z.square().sum(-1) / 2).logsumexp(1)

        return by_rows(of_rows, x, self.dim * len(means))


def eight_gaussians(*, radius: float, noise: float, scale: float) -> GaussianMixture:
    """Return eight equal Gaussians on a circle, at the points of the compass, then scaled.

    FFJORD (arXiv 1810.01367) has radius 4, noise 0.5, and divides by 1.414.

    Args:
        radius: of the circle before scaling.
        noise: standard deviation of each Gaussian before scaling.
        scale: factor on the circle and the noise.

    Raises:
        ValueError: noise or scale is zero.

    >>> density = eight_gaussians(radius=4.0, noise=0.5, scale=1 / 1.414)
    >>> density.means.shape, density.sample(5, torch.Generator()).shape
    (torch.Size([8, 2]), torch.Size([5, 2]))
    """
    angle = math.pi / 4 * torch.arange(8, dtype=torch.float64)
    centres = radius * scale * torch.stack([angle.cos(), angle.sin()], dim=1)
    covariance = (noise * scale) ** 2 * torch.eye(2, dtype=torch.float64)
    return GaussianMixture(
        means=centres.tolist(), covariances=[covariance.tolist()] * 8, weights=[1.0] * 8
    )


def _as_tensor(name: str, values: object, shape: tuple[int, ...]) -> Tensor:
    """A nested list as a finite float64 tensor of the given shape, or a ValueError."""
    try:
        tensor = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a regular nested list of numbers: {error}") from error
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, one per weight, got {(*tensor.shape,)}")
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, got {values}")
    return tensor
