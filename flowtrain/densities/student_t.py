"""The multivariate Student-t law: tails that fall as a power of the distance."""

import math

import torch
from scipy.special import digamma
from torch import Tensor

from flowtrain.densities.density import Density, require_positive
from flowtrain.densities.numerics import midpoint

DRAWN = 0.01  # of the mass lies beyond the window, the picture's
BEYOND = 1e-8  # of the mass lies beyond the nodes of the quadrature
MOST = 1000.0  # degrees of freedom: far beyond, the difference of two log Γ has no digits left


class StudentT(Density):
    """The Student-t law on a line or a plane, round: density ~ (1 + |x / scale|² / df)^-(df + d)/2.

    No box of any use holds its mass: the window is the picture's, with 1 % beyond it in the plane.
    The nodes of `quadrature` are even in asinh(x / scale), so that they are dense in the middle
    and reach to where 1e-8 of the mass is left. The entropy has a closed form.

    Args:
        dim: d, 1 or 2.
        df: degrees of freedom, 1 to 1000.
        scale: of every coordinate.

    Raises:
        ValueError: another dimension or degrees of freedom, or a scale that is not positive.

    >>> density = StudentT(dim=1, df=1.0, scale=1.0)
    >>> round(density.entropy, 4)  # of Cauchy's law, log 4π
    2.531
    >>> density.sample(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 1])
    """

    def __init__(self, *, dim: int, df: float, scale: float) -> None:
        require_positive(df=df, scale=scale)
        if dim not in (1, 2):
            raise ValueError(f"this density has dim 1 or 2, got {dim}")
        if df < 1:
            raise ValueError(f"df must be at least 1, got {df:g}: no grid reaches such tails")
        if df > MOST:
            raise ValueError(f"df must be at most {MOST:g}, got {df:g}: take a Gaussian")
        self.dim, self.df, self.scale = dim, df, scale
        corner = torch.full((dim,), scale * self._radius(DRAWN), dtype=torch.float64)
        super().__init__(window=(-corner, corner), resolution=scale / 2)

    def _radius(self, beyond: float) -> float:
        """Return how far from the centre of the plane so much of the mass lies, in scales."""
        return math.sqrt(self.df * math.expm1(-2 / self.df * math.log(beyond)))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=generator)
        half = torch.full((n, 1), self.df / 2, dtype=torch.float64)
        gamma = torch._standard_gamma(half, generator=generator)
        return self.scale * z * (half / gamma).sqrt()

    def log_prob(self, x: Tensor) -> Tensor:
        squared = (x / self.scale).square().sum(1)
        return self._log_peak - (self.df + self.dim) / 2 * torch.log1p(squared / self.df)

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        half, both = self.df / 2, (self.df + self.dim) / 2
        return float(both * (digamma(both) - digamma(half)) - self._log_peak)

    @property
    def _log_peak(self) -> float:
        """The log-density at the centre."""
        peak = math.lgamma((self.df + self.dim) / 2) - math.lgamma(self.df / 2)
        return peak - self.dim * (math.log(self.df * math.pi) / 2 + math.log(self.scale))

    def _axis_rule(self, axis: int, points: int) -> tuple[Tensor, Tensor]:
        end = math.asinh(self._radius(BEYOND))
        u, weights = midpoint(-end, end, points)
        return self.scale * u.sinh(), self.scale * weights * u.cosh()
