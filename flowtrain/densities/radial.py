"""Densities on concentric circles: rings, circles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import REACH, Density, require_positive


class Rings(Density):
    """Equally likely concentric circles, blurred.

    p(x) = mean over R of exp(-(r - R)² / 2s²) · i0e(rR / s²) / 2πs², r = |x|, s the noise;
    FFJORD (arXiv 1810.01367) has radii 0.75, 1.5, 2.25 and 3.

    Args:
        radii: one for each circle, in any order.
        noise: standard deviation.

    Raises:
        ValueError: noise or a radius is not positive, or there is no radius.

    >>> rings = Rings(radii=[0.75, 1.5, 2.25, 3.0], noise=0.08)
    >>> rings.log_prob(torch.tensor([[1.5, 0.0], [0.0, 1.5]]))  # the same in every direction
    tensor([-2.0225, -2.0225])
    """

    def __init__(self, *, radii: Sequence[float], noise: float) -> None:
        if not radii:
            raise ValueError("radii must hold at least one radius, got []")
        require_positive(noise=noise, **{f"radii[{i}]": value for i, value in enumerate(radii)})
        self.noise = noise
        self.radii = torch.tensor(radii, dtype=torch.float64)
        corner = (self.radii.max() + REACH * noise).repeat(2)
        super().__init__(window=(-corner, corner), resolution=noise)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        radius = self.radii[torch.randint(len(self.radii), (n,), generator=generator)]
        angle = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) + noise

    def components(self) -> Sequence[tuple[float, Density]]:
        radii = self.radii.tolist()
        return [(1 / len(radii), Rings(radii=[radius], noise=self.noise)) for radius in radii]

    def log_prob(self, x: Tensor) -> Tensor:
        radii, variance = self.radii.to(x), self.noise**2

        def of_rows(rows: Tensor) -> Tensor:
            r: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            # i0e = exp(-z) I0(z): the exponential has completed the square, nothing overflows
            bessel: Tensor = torch.special.i0e(r * radii / variance)
            return (bessel.log() - (r - radii).square() / (2 * variance)).logsumexp(1)

        return by_rows(of_rows, x, len(radii)) - math.log(2 * math.pi * variance * len(radii))


def circles(*, noise: float, factor: float, scale: float) -> Rings:
    """Return two concentric circles, blurred, then scaled.

    Radii 1 and factor, as scikit-learn's make_circles; FFJORD (arXiv 1810.01367) scales by 3.

    Args:
        noise: standard deviation before scaling.
        factor: the inner radius before scaling, in (0, 1).
        scale: factor on the circles and their noise.

    Raises:
        ValueError: a parameter is not positive.

    >>> density = circles(noise=0.08, factor=0.5, scale=3.0)
    >>> density.radii.tolist(), density.noise
    ([3.0, 1.5], 0.24)
    """
    return Rings(radii=[scale, factor * scale], noise=noise * scale)
