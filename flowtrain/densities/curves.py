"""Densities on a curve: moons, two spirals, swiss roll."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.densities.blur import BlurredCurve, curve_nodes
from flowtrain.densities.density import require_positive


class Moons(BlurredCurve):
    """Two interleaved half circles of radius 1, blurred, then scaled and shifted.

    (cos t, sin t) or (1 - cos t, 1/2 - sin t), t uniform in (0, π), as scikit-learn's make_moons;
    FFJORD (arXiv 1810.01367) scales by 2 and shifts by (-1, -0.2).

    Args:
        noise: standard deviation before scaling.
        scale: factor on the unit circles and their noise.
        shift: added after scaling, two numbers.

    Raises:
        ValueError: noise or scale is not positive, or shift is not finite.

    >>> moons = Moons(noise=0.1, scale=2.0, shift=[-1.0, -0.2])
    >>> x = moons.sample(5, torch.Generator().manual_seed(0))
    >>> x.shape, x.dtype, moons.log_prob(x).shape
    (torch.Size([5, 2]), torch.float64, torch.Size([5]))
    >>> nodes, weights = moons.quadrature(256)
    >>> round(float(weights @ moons.log_prob(nodes).exp()), 6)
    1.0
    """

    def __init__(self, *, noise: float, scale: float, shift: Sequence[float]) -> None:
        self.noise = noise
        self.scale = scale
        self.shift = torch.tensor(shift, dtype=torch.float64)
        t, weights = curve_nodes(_unit_circle, 0.0, math.pi, noise)
        arcs = torch.cat([_unit_circle(t), _lower(_unit_circle(t))])
        weights = weights.repeat(2) / (2 * math.pi)
        super().__init__(arcs * scale + self.shift, weights, sd=noise * scale)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        upper = torch.randint(2, (n, 1), generator=generator, dtype=torch.bool)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        arc = _unit_circle(t)
        return (torch.where(upper, arc, _lower(arc)) + noise) * self.scale + self.shift


class TwoSpirals(BlurredCurve):
    """Two Archimedean spirals, jittered, scaled and blurred.

    ±(-t cos t + u, t sin t + v) · scale + noise, t = 2π · turns · √U, u and v uniform in
    (0, jitter): FFJORD's 2spirals (arXiv 1810.01367).

    Args:
        noise: standard deviation of the Gaussian, added after scaling.
        turns: full turns of each arm.
        jitter: width of the uniform jitter before scaling, 0 for none.
        scale: radius gained per radian.

    Raises:
        ValueError: a parameter is not positive; jitter may be 0.

    >>> spirals = TwoSpirals(noise=0.1, turns=1.5, jitter=0.5, scale=1 / 3)
    >>> x = spirals.sample(5, torch.Generator().manual_seed(0))
    >>> torch.allclose(spirals.log_prob(x), spirals.log_prob(-x))  # two arms, alike
    True
    """

    def __init__(self, *, noise: float, turns: float, jitter: float, scale: float) -> None:
        self.noise = noise
        self.jitter = jitter
        self.scale = scale
        require_positive(turns=turns, scale=scale)
        self.span = 2 * math.pi * turns
        t, weights = curve_nodes(lambda t: scale * _spiral(t), 0.0, self.span, noise)
        arm = scale * (_spiral(t) + jitter / 2)
        weights = weights * t / self.span**2  # half of 2t / span², the density of span · √U
        super().__init__(torch.cat([arm, -arm]), weights.repeat(2), sd=noise, jitter=scale * jitter)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = self.span * torch.rand(n, dtype=torch.float64, generator=generator).sqrt()
        jitter = self.jitter * torch.rand(n, 2, dtype=torch.float64, generator=generator)
        sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return sign * self.scale * (_spiral(t) + jitter) + noise


class Swissroll(BlurredCurve):
    """A roll of one and a half turns, blurred, then scaled.

    (t cos t, t sin t) + noise, t uniform in (3π/2, 9π/2), as the plane of scikit-learn's
    make_swiss_roll; FFJORD (arXiv 1810.01367) divides by 5.

    Args:
        noise: standard deviation before scaling.
        scale: factor on the roll and its noise.

    Raises:
        ValueError: a parameter is not positive.

    >>> roll = Swissroll(noise=1.0, scale=0.2)
    >>> x = roll.sample(10_000, torch.Generator().manual_seed(0))
    >>> abs(float(-roll.log_prob(x).mean()) - roll.entropy) < 0.05  # Monte Carlo agrees
    True
    """

    def __init__(self, *, noise: float, scale: float) -> None:
        self.noise = noise
        self.scale = scale
        self.start, self.span = 1.5 * math.pi, 3 * math.pi
        t, weights = curve_nodes(_roll, self.start, self.start + self.span, noise)
        super().__init__(scale * _roll(t), weights / self.span, sd=noise * scale)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = self.start + self.span * torch.rand(n, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return self.scale * (_roll(t) + noise)


def _unit_circle(t: Tensor) -> Tensor:
    return torch.stack([t.cos(), t.sin()], dim=1)


def _lower(arc: Tensor) -> Tensor:
    return torch.tensor([1.0, 0.5], dtype=torch.float64) - arc


def _spiral(t: Tensor) -> Tensor:
    return t[:, None] * torch.stack([-t.cos(), t.sin()], dim=1)


def _roll(t: Tensor) -> Tensor:
    return t[:, None] * _unit_circle(t)
