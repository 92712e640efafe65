"""Neal's funnel: a target whose width changes by orders of magnitude along one coordinate."""

import math

import torch
from torch import Tensor

from flowtrain.densities.density import REACH, Density, require_positive
from flowtrain.densities.numerics import midpoint

LOG_TWO_PI_E = math.log(2 * math.pi * math.e)
SEEN = 3.0  # standard deviations to the edges of the picture: the rest of a funnel is too wide


class Funnel(Density):
    """Neal's funnel (Slice sampling, 2003, section 8): v ~ N(0, spread²), x_i | v ~ N(0, exp v).

    A point is (v, x_1 .. x_{d-1}). With the paper's spread of 3 the standard deviation of the x_i
    goes from 1e-4 to 1e4, so that no even grid sees both ends: in the plane the nodes of
    `quadrature` are even in v and in x / exp(v / 2), and reach `REACH` standard deviations of
    both. The entropy is that of d Gaussians, as E v = 0, in any dimension.

    Args:
        dim: d, at least 2.
        spread: standard deviation of v.

    Raises:
        ValueError: the dimension is below 2, the spread is not positive, or the funnel too wide.

    >>> funnel = Funnel(dim=10, spread=3.0)
    >>> funnel.sample(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 10])
    >>> round(funnel.entropy, 4)  # 10 / 2 log 2πe + log 3
    15.288
    """

    def __init__(self, *, dim: int, spread: float) -> None:
        require_positive(spread=spread)
        if dim < 2:
            raise ValueError(f"a funnel has at least 2 dimensions, got {dim}")
        self.dim, self.spread = dim, spread
        corner = torch.full((dim,), SEEN * math.exp(min(spread**2 / 4, 700)), dtype=torch.float64)
        corner[0] = SEEN * spread
        super().__init__(window=(-corner, corner), resolution=min(1.0, spread) / 2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=generator)
        v = self.spread * z[:, :1]
        return torch.cat([v, (v / 2).exp() * z[:, 1:]], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        v, rest = x[:, 0], x[:, 1:]
        # Never infinite: 0 times that is NaN.
        stretch = (-v / 2).clamp(max=math.log(torch.finfo(x.dtype).max) - 1).exp()
        z = torch.cat([v[:, None] / self.spread, stretch[:, None] * rest], 1)
        log_scale = math.log(self.spread) + (self.dim - 1) * v / 2
        log_p: Tensor = -0.5 * (z.square().sum(1) + self.dim * math.log(2 * math.pi)) - log_scale
        return log_p

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return self.dim / 2 * LOG_TWO_PI_E + math.log(self.spread)

    def quadrature(self, points: int = 256) -> tuple[Tensor, Tensor]:
        nodes, weights = midpoint(-REACH, REACH, points)
        z = torch.cartesian_prod(nodes, nodes)
        v = self.spread * z[:, 0]
        x = torch.stack([v, (v / 2).exp() * z[:, 1]], 1)
        return x, torch.outer(weights, weights).flatten() * self.spread * (v / 2).exp()
