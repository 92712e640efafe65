"""A warped Gaussian with several preimages: the pinwheel."""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.batching import by_rows
from flowtrain.densities.density import REACH, Density, require_positive
from flowtrain.densities.numerics import logsumexp_by_row, midpoint
from flowtrain.densities.rotated import Rotated
from flowtrain.roots import rising_root

MAX_TURNS = 50.0  # of the spiral for which preimages are enumerated: at most 100 x arms of them


class Pinwheel(Density):
    """Gaussian blades whose rotation grows exponentially along them, then scaled.

    a ~ N(1, radial_std²), b ~ N(0, tangential_std²), (a, b) rotated by -(2πk / arms + rate · eᵃ)
    for a uniform k, times scale; FFJORD (arXiv 1810.01367) has 5 arms.

    The rotation keeps the radius r, so in polar angles the map is ψ -> ψ - rate · exp(r cos ψ)
    with derivative 1 + rate · eᵃ · b. That is neither 1 nor always positive: the plane folds, and
    the density sums over all preimages.

    Args:
        arms: number of blades.
        radial_std: standard deviation along a blade, before scaling.
        tangential_std: standard deviation across a blade, before scaling.
        rate: strength of the warp, 0 for straight blades.
        scale: factor on everything.

    Raises:
        ValueError: a parameter is out of range, or the blades are wound too tightly.

    >>> pinwheel = Pinwheel(arms=2, radial_std=0.3, tangential_std=0.1, rate=0.25, scale=2.0)
    >>> x = pinwheel.sample(5, torch.Generator().manual_seed(0))
    >>> torch.allclose(pinwheel.log_prob(x), pinwheel.log_prob(-x))  # two arms: half a turn
    True
    """

    def __init__(
        self, *, arms: int, radial_std: float, tangential_std: float, rate: float, scale: float
    ) -> None:
        require_positive(radial_std=radial_std, tangential_std=tangential_std, scale=scale)
        if arms < 1:
            raise ValueError(f"arms must be >= 1, got {arms}")
        if not 0 <= rate < math.inf:
            raise ValueError(f"rate must be >= 0, got {rate:g}")
        self.arms = arms
        self.radial_std = radial_std
        self.tangential_std = tangential_std
        self.rate = rate
        self.scale = scale
        reach = math.hypot(1 + REACH * radial_std, REACH * tangential_std)
        self._log_rate = math.log(rate) if rate > 0 else -math.inf
        self._wound = math.log(2 * math.pi * MAX_TURNS) - self._log_rate
        if reach > self._wound:
            raise ValueError(
                f"rate {rate:g} and radial_std {radial_std:g} wind the arms more than "
                f"{MAX_TURNS:g} times: lower one of them"
            )
        corner = torch.full((2,), reach * scale, dtype=torch.float64)
        super().__init__(
            window=(-corner, corner), resolution=scale * min(radial_std, tangential_std)
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        stds = torch.tensor([self.radial_std, self.tangential_std], dtype=torch.float64)
        blade = stds * torch.randn(n, 2, dtype=torch.float64, generator=generator)
        arm = torch.randint(self.arms, (n,), generator=generator)
        return self._warp(blade + torch.tensor([1.0, 0.0], dtype=torch.float64), arm)

    def components(self) -> Sequence[tuple[float, Density]]:
        one = Pinwheel(
            arms=1,
            radial_std=self.radial_std,
            tangential_std=self.tangential_std,
            rate=self.rate,
            scale=self.scale,
        )
        turn = 2 * math.pi / self.arms
        return [(1 / self.arms, Rotated(one, -turn * arm)) for arm in range(self.arms)]

    def log_prob(self, x: Tensor) -> Tensor:
        # Beyond 50 turns, farther out than any mass, it is the mean over the circle through x.
        return by_rows(self._log_prob_rows, x / self.scale, 64) - 2 * math.log(self.scale)

    @cached_property
    def entropy(self) -> float:
        """The mean of -log p over one blade in its own Gaussian coordinates, in nats.

        There a fold leaves a logarithm to integrate, in the plane an inverse square root.

        Raises:
            ValueError: folds carry so much of the mass that no grid settles to 1e-6.
        """
        coarse = math.inf
        for points in (64, 128, 256, 512):
            fine = self._entropy_on_grid(points)
            if abs(fine - coarse) < 1e-6:
                return fine
            coarse = fine
        raise ValueError(
            f"rate {self.rate:g} folds the blades too far for an exact entropy: lower rate, "
            "radial_std or tangential_std"
        )

    def _entropy_on_grid(self, points: int) -> float:
        z, weights = midpoint(-REACH, REACH, points)
        weights = weights * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        blade = torch.cartesian_prod(1 + self.radial_std * z, self.tangential_std * z)
        log_p = self.log_prob(self._warp(blade, torch.tensor(0)))
        return -float(torch.outer(weights, weights).flatten() @ log_p)

    def _warp(self, blade: Tensor, arm: Tensor) -> Tensor:
        a, b = blade.unbind(1)
        angle = 2 * math.pi / self.arms * arm + self.rate * a.exp()
        cos, sin = angle.cos(), angle.sin()
        return self.scale * torch.stack([a * cos + b * sin, b * cos - a * sin], dim=1)

    def _log_blade(self, rho: Tensor, psi: Tensor) -> Tensor:
        """log N(a; 1, radial_std²) N(b; 0, tangential_std²) at polar coordinates of (a, b)."""
        a = (rho * psi.cos() - 1) / self.radial_std
        b = rho * psi.sin() / self.tangential_std
        volume = 2 * math.pi * self.radial_std * self.tangential_std
        return -(a.square() + b.square()) / 2 - math.log(volume)

    def _turned(self, rho: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        """The angle ψ - rate · exp(r cos ψ) and its derivative, which is also the map's det."""
        twist = (self._log_rate + rho * psi.cos()).exp()
        return psi - twist, 1 + twist * rho * psi.sin()

    def _log_prob_rows(self, y: Tensor) -> Tensor:
        # Not infinite: 0 times that is NaN. From here on squares are, and log p is -inf.
        farthest = math.sqrt(torch.finfo(y.dtype).max)
        rho = torch.linalg.vector_norm(y, dim=1).clamp(max=farthest)
        theta = torch.atan2(y[:, 1], y[:, 0])
        far = rho > self._wound
        log_p = y.new_empty(len(y))
        log_p = log_p.masked_scatter(~far, self._sum_of_preimages(rho[~far], theta[~far]))
        return log_p.masked_scatter(far, self._mean_over_circle(rho[far]))

    def _mean_over_circle(self, rho: Tensor) -> Tensor:
        psi = 2 * math.pi / 256 * torch.arange(256, dtype=rho.dtype, device=rho.device)
        return self._log_blade(rho[:, None], psi).logsumexp(1) - math.log(256)

    def _sum_of_preimages(self, rho: Tensor, theta: Tensor) -> Tensor:
        rows = len(rho)
        row, psi = self._preimages(rho.detach(), theta.detach())
        rho, theta = rho[row], theta[row]
        # Two Newton steps outside the search carry the first and second derivatives by y.
        period = 2 * math.pi / self.arms
        for _ in range(2):
            angle, det = self._turned(rho, psi)
            det = torch.where(det.abs() < 1e-12, 1e-12, det)
            miss = angle - theta
            psi = psi - (miss - period * (miss.detach() / period).round()) / det
        _, det = self._turned(rho, psi)
        terms = self._log_blade(rho, psi) - det.abs().clamp(min=1e-12).log()
        return logsumexp_by_row(terms, row, rows) - math.log(self.arms)

    @torch.no_grad()
    def _preimages(self, rho: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """All ψ with turned(ψ) = θ modulo 2π / arms: (row, ψ), (m,) each.

        Around the circle turned(ψ) rises by 2π, except that it falls between two folds in (-π, 0)
        where the twist is strong. On the rising stretch from the second fold around to the first,
        and on the falling one between them, it is monotone: each value is met once on each.
        """
        steepest = -torch.acos(2 * rho / (1 + (1 + 4 * rho.square()).sqrt()))
        folded = self._turned(rho, steepest)[1] < 0
        low = torch.stack([torch.where(folded, -math.pi, steepest), steepest])
        high = torch.stack([steepest, torch.where(folded, 0.0, steepest)])
        sign = rho.new_tensor([[-1.0], [1.0]])

        def folding(psi: Tensor) -> tuple[Tensor, Tensor]:
            det = self._turned(rho, psi)[1]
            slope = (det - 1) * (psi.cos() / psi.sin() - rho * psi.sin())
            return sign * det, sign * slope

        first, second = rising_root(folding, low, high)
        period = 2 * math.pi / self.arms
        start = ((self._turned(rho, second)[0] - theta) / period).ceil()
        stop = ((self._turned(rho, first)[0] - theta) / period).ceil()
        falls = (stop - start).clamp(min=0).to(torch.int64)
        rises = falls + self.arms

        count = rises + falls
        row = torch.arange(len(rho), device=rho.device).repeat_interleave(count)
        rank = torch.arange(len(row), device=rho.device) - (count.cumsum(0) - count)[row]
        rising = rank < rises[row]
        level = start[row] + torch.where(rising, rank, rank - rises[row])
        direction = torch.where(rising, 1.0, -1.0).to(rho)
        rho, target = rho[row], theta[row] + period * level

        def passing(psi: Tensor) -> tuple[Tensor, Tensor]:
            angle, det = self._turned(rho, psi)
            return direction * (angle - target), direction * det

        low = torch.where(rising, second[row], first[row])
        high = torch.where(rising, first[row] + 2 * math.pi, second[row])
        return row, rising_root(passing, low, high)
