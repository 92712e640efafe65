"""Monotone maps of single coordinates, their parameters given: affine, rational-quadratic splines.

Each is `forward(z, parameters) -> (x, log_slope)` and `inverse(x, parameters) -> (z, log_slope)`:
z and x are (n, m), parameters (n, m, size), all zeros for the identity; log_slope, (n, m), is
log dx/dz or log dz/dx.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Elementwise(Protocol):
    """A family of increasing maps of the line, with so many parameters each."""

    @property
    def size(self) -> int: ...

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]: ...

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Affine:
    """x = z * exp(s) + m (arXiv 1605.08803, eq. 7).

    The log-scale is bounded smoothly and symmetrically, s = bound * tanh(raw / bound), so that
    exp(s) can neither overflow nor vanish.

    Args:
        log_scale_bound: of |s|.
        size: parameters of a map: m, and s before it is bounded.

    >>> parameters = torch.tensor([[[0.5, 100.0]]])
    >>> x, log_slope = Affine(log_scale_bound=2.0).forward(torch.ones(1, 1), parameters)
    >>> x, log_slope  # exp(2) + 0.5
    (tensor([[7.8891]]), tensor([[2.]]))
    """

    log_scale_bound: float
    size: int = 2

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(-1)
        log_scale = self.log_scale_bound * torch.tanh(raw / self.log_scale_bound)
        return z * log_scale.exp() + shift, log_scale

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(-1)
        log_scale = self.log_scale_bound * torch.tanh(raw / -self.log_scale_bound)  # it is odd
        return (x - shift) * log_scale.exp(), log_scale


@dataclass(frozen=True)
class RationalQuadratic:
    """A monotone rational-quadratic spline on [-bound, bound], the identity beyond.

    `inverse` evaluates the spline (arXiv 1906.04032, eq. 4 and 5) and `forward` solves it (eq. 6,
    in another variable than eq. 7 and 8): training, which maps data to base, takes the cheaper
    direction.

    Args:
        bins: of the spline; it has 3 * bins - 1 parameters: widths, heights and inner slopes.
        bound: half the side of its square.
        smallest: the least slope, and the least side of a bin as a fraction of the square's.

    >>> family = RationalQuadratic(bins=4, bound=3.0)
    >>> z, generator = torch.linspace(-4, 4, 7)[:, None], torch.Generator().manual_seed(0)
    >>> parameters = torch.randn(7, 1, family.size, generator=generator)
    >>> x, log_slope = family.forward(z, parameters)
    >>> torch.allclose(family.inverse(x, parameters)[0], z, atol=1e-5)
    True
    """

    bins: int
    bound: float
    smallest: float = 1e-3  # bin, as a fraction of the side; and slope

    @property
    def size(self) -> int:
        return 3 * self.bins - 1

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        x0, y0, width, height, d0, d1 = self._bin(x, parameters, 0)
        u = ((x - x0) / width).clamp(0, 1)  # out there the value is not used, its gradient must be
        y, log_slope = self._within(u, height, height / width, d0, d1)
        return torch.where(inside, y0 + y, x), torch.where(inside, log_slope, 0)

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = z.abs() < self.bound
        x0, y0, width, height, d0, d1 = self._bin(z, parameters, 1)
        slope = height / width
        rise = ((z - y0) / height).clamp(0, 1)
        rest = 1 - rise
        # In u / (1 - u) the equation is rest s t² + b t - rise s = 0: no root of it cancels.
        b = rest * d0 - rise * d1
        early = b >= 0
        near = 2 * slope * torch.where(early, rise, rest)
        far = (b * b + 4 * slope * slope * rise * rest).sqrt() + torch.where(early, b, -b)
        u = torch.where(early, near, far) / (near + far)
        _, log_slope = self._within(u, height, slope, d0, d1)
        return torch.where(inside, x0 + u * width, z), torch.where(inside, -log_slope, 0)

    def _within(
        self, u: Tensor, height: Tensor, slope: Tensor, d0: Tensor, d1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a bin's value above its corner and the log of its slope, u in [0, 1] along it.

        Its numerators and its denominator are quadratics in u, here as means of means.
        """
        early, late = torch.lerp(d0, slope, u), torch.lerp(slope, d1, u)
        denominator, steepness = torch.lerp(late, early, u), torch.lerp(early, late, u)
        ratio = slope / denominator
        return height * u * early / denominator, (ratio * ratio * steepness).log()

    def _bin(self, at: Tensor, parameters: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Return corner, sides and end slopes of the bin that holds each value."""
        k, side = self.bins, 2 * self.bound
        raw_sides, raw_slopes = parameters.split([2 * k, k - 1], -1)
        shares = raw_sides.unflatten(-1, (2, k)).softmax(-1)
        sides = self.smallest * side + (1 - k * self.smallest) * side * shares
        ends = sides.cumsum(-1)
        left = (at[..., None] + self.bound >= ends[..., axis, :-1]).sum(-1, keepdim=True)
        here = left[..., None, :].expand(*at.shape, 2, 1)
        size = sides.gather(-1, here)
        corner = ends.gather(-1, here) - size - self.bound
        one = math.log(math.expm1(1 - self.smallest))  # softplus of it is 1 - smallest
        both = nn.functional.pad(raw_slopes, (1, 1)).gather(-1, torch.cat([left, left + 1], -1))
        d0, d1 = (self.smallest + nn.functional.softplus(both + one)).unbind(-1)
        return *corner.squeeze(-1).unbind(-1), *size.squeeze(-1).unbind(-1), d0, d1
