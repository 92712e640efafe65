"""Toy laws on a curve: moons, two spirals, swiss roll."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.data.blur import BlurredCurve, curve_nodes
from flowtrain.data.density import Density, require_positive
from flowtrain.data.subset import subset_of_pool


class Moons(Density):
    """Two interleaved half circles of radius 1, blurred, then scaled and shifted.

    (cos t, sin t) or (1 - cos t, 1/2 - sin t), t uniform in (0, π), as scikit-learn's make_moons;
    FFJORD (arXiv 1810.01367) scales by 2 and shifts by (-1, -0.2).

    Args:
        noise: standard deviation before scaling.
        scale: factor on the unit circles and their noise.
        shift: added after scaling, two numbers.

    Raises:
        ValueError: noise or scale is not positive, or shift is not two finite numbers.
    """

    def __init__(self, *, noise: float, scale: float, shift: Sequence[float]) -> None:
        require_positive(noise=noise, scale=scale)
        if len(shift) != 2 or not all(math.isfinite(value) for value in shift):
            raise ValueError(f"shift must be two finite numbers, got {list(shift)}")
        self.noise = noise
        self.scale = scale
        self.shift = torch.tensor(shift, dtype=torch.float64)
        t, weights = curve_nodes(_unit_circle, 0.0, math.pi, noise)
        upper = _unit_circle(t)
        lower = torch.tensor([1.0, 0.5], dtype=torch.float64) - upper
        self._blur = BlurredCurve(
            torch.cat([upper, lower]) * scale + self.shift,
            weights.repeat(2) / (2 * math.pi),
            sd=noise * scale,
        )
        super().__init__(window=self._blur.window, resolution=self._blur.sd)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 2) points, a random subset of a large scikit-learn pool."""
        from sklearn.datasets import make_moons

        points = subset_of_pool(
            lambda size, seed: make_moons(size, shuffle=False, noise=self.noise, random_state=seed)[
                0
            ],
            n,
            generator,
        )
        return points * self.scale + self.shift

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,)."""
        return self._blur.log_prob(x)

    def _prob_on_grid(self, x: Tensor, y: Tensor) -> Tensor:
        return self._blur.prob_on_grid(x, y)


class TwoSpirals(Density):
    """Two Archimedean spirals, jittered, scaled and blurred.

    ±(-t cos t + u, t sin t + v) · scale + noise, t = 2π · turns · √U, u and v uniform in
    (0, jitter): FFJORD's 2spirals (arXiv 1810.01367).

    Args:
        noise: standard deviation of the Gaussian, added after scaling.
        turns: full turns of each arm.
        jitter: width of the uniform jitter before scaling.
        scale: radius gained per radian.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, *, noise: float, turns: float, jitter: float, scale: float) -> None:
        require_positive(noise=noise, turns=turns, jitter=jitter, scale=scale)
        self.noise = noise
        self.jitter = jitter
        self.scale = scale
        self.span = 2 * math.pi * turns
        t, weights = curve_nodes(lambda t: scale * _spiral(t), 0.0, self.span, noise)
        arm = scale * (_spiral(t) + jitter / 2)
        law = weights * t / self.span**2  # half of 2t / span², the density of span · √U
        self._blur = BlurredCurve(
            torch.cat([arm, -arm]), law.repeat(2), sd=noise, jitter=scale * jitter
        )
        super().__init__(window=self._blur.window, resolution=noise)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 2) independent points."""
        t = self.span * torch.rand(n, dtype=torch.float64, generator=generator).sqrt()
        jitter = self.jitter * torch.rand(n, 2, dtype=torch.float64, generator=generator)
        sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return sign * self.scale * (_spiral(t) + jitter) + noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,)."""
        return self._blur.log_prob(x)

    def _prob_on_grid(self, x: Tensor, y: Tensor) -> Tensor:
        return self._blur.prob_on_grid(x, y)


class Swissroll(Density):
    """A roll of one and a half turns, blurred, then scaled.

    (t cos t, t sin t) + noise, t uniform in (3π/2, 9π/2), as the plane of scikit-learn's
    make_swiss_roll; FFJORD (arXiv 1810.01367) divides by 5.

    Args:
        noise: standard deviation before scaling.
        scale: factor on the roll and its noise.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, *, noise: float, scale: float) -> None:
        require_positive(noise=noise, scale=scale)
        self.noise = noise
        self.scale = scale
        self.start, self.span = 1.5 * math.pi, 3 * math.pi
        t, weights = curve_nodes(_roll, self.start, self.start + self.span, noise)
        self._blur = BlurredCurve(scale * _roll(t), weights / self.span, sd=noise * scale)
        super().__init__(window=self._blur.window, resolution=self._blur.sd)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 2) independent points."""
        t = self.start + self.span * torch.rand(n, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return self.scale * (_roll(t) + noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate log p in nats, (n, 2) -> (n,)."""
        return self._blur.log_prob(x)

    def _prob_on_grid(self, x: Tensor, y: Tensor) -> Tensor:
        return self._blur.prob_on_grid(x, y)


def _unit_circle(t: Tensor) -> Tensor:
    return torch.stack([t.cos(), t.sin()], dim=1)


def _spiral(t: Tensor) -> Tensor:
    return t[:, None] * torch.stack([-t.cos(), t.sin()], dim=1)


def _roll(t: Tensor) -> Tensor:
    return t[:, None] * _unit_circle(t)
