"""Densities on a curve: moons, two spirals, swiss roll."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtrain.densities.blur import BlurredCurve, curve_nodes
from flowtrain.densities.density import Density, require_positive
from flowtrain.densities.rotated import Rotated


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
        require_positive(scale=scale)
        self.noise = noise
        self.scale = scale
        self.shift = torch.tensor(shift, dtype=torch.float64)
        self.arcs = [
            Arc(upper=upper, noise=noise, scale=scale, shift=shift) for upper in (True, False)
        ]
        super().__init__(
            torch.cat([arc.centres for arc in self.arcs]),
            torch.cat([arc.weights for arc in self.arcs]) / 2,
            sd=noise * scale,
        )

    def components(self) -> Sequence[tuple[float, Density]]:
        return [(0.5, arc) for arc in self.arcs]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        upper = torch.randint(2, (n, 1), generator=generator, dtype=torch.bool)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        arc = _unit_circle(t)
        return (torch.where(upper, arc, _lower(arc)) + noise) * self.scale + self.shift


class Arc(BlurredCurve):
    """One of the half circles of `Moons`, whose other arguments it has.

    Args:
        upper: whether it is the first.

    >>> arc = Arc(upper=False, noise=0.1, scale=1.0, shift=[0.0, 0.0])
    >>> x = arc.sample(1000, torch.Generator().manual_seed(0))
    >>> [round(mean, 1) for mean in x.mean(0).tolist()]  # 1 and 1/2 - 2/π
    [1.0, -0.1]
    """

    def __init__(self, *, upper: bool, noise: float, scale: float, shift: Sequence[float]) -> None:
        self.upper = upper
        self.noise = noise
        self.scale = scale
        self.shift = torch.tensor(shift, dtype=torch.float64)
        t, weights = curve_nodes(self._curve, 0.0, math.pi, noise)
        super().__init__(self._curve(t) * scale + self.shift, weights / math.pi, sd=noise * scale)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return (self._curve(t) + noise) * self.scale + self.shift

    def _curve(self, t: Tensor) -> Tensor:
        return _unit_circle(t) if self.upper else _lower(_unit_circle(t))


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
        self.arm = Spiral(noise=noise, turns=turns, jitter=jitter, scale=scale)
        centres, weights = self.arm.centres, self.arm.weights
        super().__init__(
            torch.cat([centres, -centres]), weights.repeat(2) / 2, sd=noise, jitter=scale * jitter
        )

    def components(self) -> Sequence[tuple[float, Density]]:
        return [(0.5, self.arm), (0.5, Rotated(self.arm, math.pi))]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = self.span * torch.rand(n, dtype=torch.float64, generator=generator).sqrt()
        jitter = self.jitter * torch.rand(n, 2, dtype=torch.float64, generator=generator)
        sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return sign * self.scale * (_spiral(t) + jitter) + noise


class Spiral(BlurredCurve):
    """One arm of `TwoSpirals`, whose arguments it has.

    >>> arm = Spiral(noise=0.1, turns=0.25, jitter=0.0, scale=1.0)
    >>> x = arm.sample(1000, torch.Generator().manual_seed(0))
    >>> bool((x.mean(0) > 0).tolist() == [False, True])  # upwards, from right to left
    True
    """

    def __init__(self, *, noise: float, turns: float, jitter: float, scale: float) -> None:
        self.noise = noise
        self.jitter = jitter
        self.scale = scale
        self.span = 2 * math.pi * turns
        t, weights = curve_nodes(lambda t: scale * _spiral(t), 0.0, self.span, noise)
        weights = weights * 2 * t / self.span**2  # the density of span · √U
        centres = scale * (_spiral(t) + jitter / 2)
        super().__init__(centres, weights, sd=noise, jitter=scale * jitter)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = self.span * torch.rand(n, dtype=torch.float64, generator=generator).sqrt()
        jitter = self.jitter * torch.rand(n, 2, dtype=torch.float64, generator=generator)
        noise = self.noise * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return self.scale * (_spiral(t) + jitter) + noise


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
