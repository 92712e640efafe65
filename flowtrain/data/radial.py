"""Toy laws on concentric circles: rings, circles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.data.density import REACH, Density, by_rows, require_positive
from flowtrain.data.subset import subset_of_pool


class Rings(Density):
    """Equally likely concentric circles, blurred.

    p(x) = mean over R of exp(-(r - R)² / 2s²) · i0e(rR / s²) / 2πs², r = |x|, s the noise;
    FFJORD (arXiv 1810.01367) has radii 0.75, 1.5, 2.25 and 3.

    Args:
        radii: one for each circle, in any order.
        noise: standard deviation.

    Raises:
        ValueError: noise or a radius is not positive, or there is no radius.
    """

    def __init__(self, *, radii: Sequence[float], noise: float) -> None:
        require_positive(noise=noise, **{f"radii[{i}]": value for i, value in enumerate(radii)})
        if not radii:
            raise ValueError("radii must hold at least one radius, got []")
        self.noise = noise
        self.radii = torch.tensor(radii, dtype=torch.float64)
        corner = (self.radii.max() + REACH * noise).repeat(2)
        super().__init__(window=(-corner, corner), resolution=noise)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 2) independent points."""
        radius = self.radii[torch.randint(len(self.radii), (n,), generator=generator)]
        angle = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) + noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,)."""
        radii, variance = self.radii.to(x), self.noise**2

        def log_prob(rows: Tensor) -> Tensor:
            r: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            # i0e = exp(-z) I0(z): the exponential has completed the square, nothing overflows
            bessel: Tensor = torch.special.i0e(r * radii / variance)
            return (bessel.log() - (r - radii).square() / (2 * variance)).logsumexp(1)

        return by_rows(log_prob, x, len(radii)) - math.log(2 * math.pi * variance * len(radii))


class Circles(Density):
    """Two concentric circles, blurred, then scaled.

    Radii 1 and factor, as scikit-learn's make_circles; FFJORD (arXiv 1810.01367) scales by 3.

    Args:
        noise: standard deviation before scaling.
        factor: the inner radius before scaling, in (0, 1).
        scale: factor on the circles and their noise.

    Raises:
        ValueError: noise or scale is not positive, or factor is not in (0, 1).
    """

    def __init__(self, *, noise: float, factor: float, scale: float) -> None:
        require_positive(noise=noise, scale=scale)
        if not 0 < factor < 1:
            raise ValueError(f"factor must be in (0, 1), got {factor:g}")
        self.noise = noise
        self.factor = factor
        self.scale = scale
        self._rings = Rings(radii=[scale, factor * scale], noise=noise * scale)
        super().__init__(window=self._rings.window, resolution=self._rings.resolution)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 2) points, a random subset of a large scikit-learn pool."""
        from sklearn.datasets import make_circles

        points = subset_of_pool(
            lambda size, seed: make_circles(
                size, shuffle=False, noise=self.noise, factor=self.factor, random_state=seed
            )[0],
            n,
            generator,
        )
        return points * self.scale

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,)."""
        return self._rings.log_prob(x)
