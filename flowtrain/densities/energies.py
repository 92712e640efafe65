"""Targets of variational inference in the plane: four energies of a benchmark, a banana."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtrain.batching import BLOCK, by_rows
from flowtrain.densities.density import REACH, Density, box_around, require_positive
from flowtrain.densities.numerics import draw_kinds, log_ndtr, midpoint

EDGE, SOFTNESS = 4.0, 0.4  # where a wave ends, and how softly


class TwoArcs(Density):
    """Energy U1 of Rezende and Mohamed (arXiv 1505.05770, table 1): two facing halves of a ring.

    U(x) = ((|x| - 2) / thickness)² / 2 - log(s(x_1 - 2) + s(x_1 + 2)), s(a) = exp(-(a / 0.6)² / 2),
    and p = exp(-U) / Z with log Z by quadrature to 1e-9.

    Args:
        thickness: of the ring, a standard deviation.
        sides: 1 is the right half, -1 the left one.

    Raises:
        ValueError: the thickness is not positive.

    >>> round(TwoArcs(thickness=0.4).log_normalizer, 4)
    1.8775
    """

    radius, spread = 2.0, 0.6
    log_normalizer: float

    def __init__(self, *, thickness: float, sides: Sequence[int] = (1, -1)) -> None:
        require_positive(thickness=thickness)
        self.thickness, self.sides = thickness, tuple(sides)
        edge = self.radius + REACH * thickness
        corner = torch.full((2,), edge, dtype=torch.float64)
        super().__init__(window=(-corner, corner), resolution=min(thickness, self.spread) / 2)
        points, _ = self.grid_points
        nodes, weights = midpoint(-edge, edge, points)
        parts = [
            by_rows(lambda x: -self._energy(x), torch.cartesian_prod(some, nodes), 8).logsumexp(0)
            for some in nodes.split(max(1, BLOCK // points))
        ]
        self.log_normalizer = float(torch.stack(parts).logsumexp(0) + 2 * weights[0].log())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        longest = self.radius + REACH * self.thickness
        found = [torch.empty(0, 2, dtype=torch.float64)]
        while (missing := n - sum(map(len, found))) > 0:
            # Uniform angles and Gaussian radii have a density of exp(-ring) / |x|.
            draws = 8 * missing
            radius = self.radius + self.thickness * torch.randn(
                draws, dtype=torch.float64, generator=generator
            )
            angle = 2 * math.pi * torch.rand(draws, dtype=torch.float64, generator=generator)
            x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
            accept = radius.clamp(0, longest) / longest * self._sides(x[:, 0]).exp()
            kept = torch.rand(draws, dtype=torch.float64, generator=generator) < accept
            found.append(x[kept][:missing])
        return torch.cat(found)

    def components(self) -> Sequence[tuple[float, Density]]:
        if len(self.sides) < 2:
            return ()
        return [(0.5, TwoArcs(thickness=self.thickness, sides=[side])) for side in self.sides]

    def log_prob(self, x: Tensor) -> Tensor:
        return -self._energy(x) - self.log_normalizer

    def _energy(self, x: Tensor) -> Tensor:
        ring = ((torch.linalg.vector_norm(x, dim=1) - self.radius) / self.thickness).square() / 2
        energy: Tensor = ring - self._sides(x[:, 0])
        return energy

    def _sides(self, along: Tensor) -> Tensor:
        middles = [side * self.radius for side in self.sides]
        sides = [-((along - middle) / self.spread).square() / 2 for middle in middles]
        return torch.stack(sides).logsumexp(0)


@dataclass(frozen=True)
class Ridge:
    """A ridge of a `Waves`: its x_2 over each x_1, and how thick it is.

    >>> Ridge(torch.sin, thickness=0.4).thickness
    0.4
    """

    middle: Callable[[Tensor], Tensor]
    thickness: float


class Waves(Density):
    """Energies U2 to U4 of Rezende and Mohamed (arXiv 1505.05770, table 1): one wave or two.

    exp(-U(x)) = sum over ridges of exp(-((x_2 - middle(x_1)) / thickness)² / 2). As the paper
    writes them they have no end along x_1, and no integral: here x_1 is uniform on [-4, 4], blurred
    by 0.4, so that the waves fade out there. Then samples and log Z are exact.

    Args:
        ridges: one or two.

    Raises:
        ValueError: a ridge's thickness is not positive.

    >>> round(u2(thickness=0.4).log_normalizer, 4)  # log of 8 sqrt(2π) 0.4
    2.0821
    """

    log_normalizer: float

    def __init__(self, *ridges: Ridge) -> None:
        require_positive(
            **{"thickness": ridges[0].thickness, "second_thickness": ridges[-1].thickness}
        )
        self.ridges = ridges
        self.thickness = torch.tensor([ridge.thickness for ridge in ridges], dtype=torch.float64)
        self.log_normalizer = math.log(
            2 * EDGE * math.sqrt(2 * math.pi) * float(self.thickness.sum())
        )
        along, _ = midpoint(-EDGE - REACH * SOFTNESS, EDGE + REACH * SOFTNESS, 4096)
        reach = REACH * float(self.thickness.max())
        corners = [torch.stack([along, ridge.middle(along)], 1) for ridge in ridges]
        low, high = box_around(torch.cat(corners), torch.tensor([0.0, reach], dtype=torch.float64))
        finest = min(float(self.thickness.min()), SOFTNESS)
        super().__init__(window=(low, high), resolution=finest / 2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, dtype=torch.float64, generator=generator)
        blur, noise = torch.randn(2, n, dtype=torch.float64, generator=generator)
        along = EDGE * (2 * uniform - 1) + SOFTNESS * blur
        which = draw_kinds(self.thickness, n, generator)
        middles = torch.stack([ridge.middle(along) for ridge in self.ridges], 1)
        across = middles.gather(1, which[:, None])[:, 0] + self.thickness[which] * noise
        return torch.stack([along, across], 1)

    def components(self) -> Sequence[tuple[float, Density]]:
        if len(self.ridges) < 2:
            return ()
        shares = (self.thickness / self.thickness.sum()).tolist()
        return [(share, Waves(ridge)) for share, ridge in zip(shares, self.ridges, strict=True)]

    def log_prob(self, x: Tensor) -> Tensor:
        along, across = x.unbind(1)
        # Φ(near) - Φ(far), the uniform law's blurred edges, without cancellation
        near, far = (log_ndtr((side - along.abs()) / SOFTNESS) for side in (EDGE, -EDGE))
        both = near > -EDGE / SOFTNESS  # beyond, the far edge is nothing beside the near one
        inside = near + torch.log1p(-torch.exp(torch.where(both, far - near, -math.inf)))
        ridges = torch.stack(
            [-((across - r.middle(along)) / r.thickness).square() / 2 for r in self.ridges], 1
        )
        log_p: Tensor = ridges.logsumexp(1) + inside - self.log_normalizer
        return log_p


def u2(*, thickness: float) -> Waves:
    """Return energy U2: one wave.

    Args:
        thickness: of the wave, a standard deviation; 0.4 there.

    Raises:
        ValueError: the thickness is not positive.

    >>> u2(thickness=0.4).sample(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """
    return Waves(Ridge(_wave, thickness))


def u3(*, thickness: float) -> Waves:
    """Return energy U3: a wave that splits in two and closes again.

    Args:
        thickness: of both ridges, a standard deviation; 0.35 there.

    Raises:
        ValueError: the thickness is not positive.

    >>> len(u3(thickness=0.35).ridges)
    2
    """
    return Waves(Ridge(_wave, thickness), Ridge(lambda x: _wave(x) - _bump(x), thickness))


def u4(*, thickness: float, second_thickness: float) -> Waves:
    """Return energy U4: a wave that splits in two.

    Args:
        thickness: of the upper ridge, a standard deviation; 0.4 there.
        second_thickness: of the lower one; 0.35 there.

    Raises:
        ValueError: a thickness is not positive.

    >>> u4(thickness=0.4, second_thickness=0.35).thickness.tolist()
    [0.4, 0.35]
    """
    return Waves(Ridge(_wave, thickness), Ridge(lambda x: _wave(x) - _step(x), second_thickness))


def _wave(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x / 4)


def _bump(x: Tensor) -> Tensor:
    return 3 * torch.exp(-((x - 1) / 0.6).square() / 2)


def _step(x: Tensor) -> Tensor:
    return 3 * torch.sigmoid((x - 1) / 0.3)


class Banana(Density):
    """A Gaussian bent along a parabola, as Rosenbrock's valley: x_2 = curvature x_1² + noise.

    x_1 ~ N(0, spread²), x_2 | x_1 ~ N(curvature (x_1² - spread²), noise²): its entropy is that of
    the two Gaussians.

    Args:
        spread: standard deviation along the valley.
        noise: standard deviation across it.
        curvature: of the valley.

    Raises:
        ValueError: a parameter is not positive.

    >>> round(Banana(spread=1.0, noise=0.3, curvature=0.5).entropy, 4)  # log 2πe + log 0.3
    1.6339
    """

    def __init__(self, *, spread: float, noise: float, curvature: float) -> None:
        require_positive(spread=spread, noise=noise, curvature=curvature)
        self.spread, self.noise, self.curvature = spread, noise, curvature
        edge = REACH * spread
        low, high = self._valley(torch.tensor([0.0, edge], dtype=torch.float64)).tolist()
        margin = REACH * noise
        super().__init__(
            window=(
                torch.tensor([-edge, low - margin], dtype=torch.float64),
                torch.tensor([edge, high + margin], dtype=torch.float64),
            ),
            resolution=min(spread, noise, noise / (2 * curvature * spread)),
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        along = self.spread * z[:, 0]
        return torch.stack([along, self._valley(along) + self.noise * z[:, 1]], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        along, across = x.unbind(1)
        z = torch.stack([along / self.spread, (across - self._valley(along)) / self.noise], 1)
        constant = math.log(2 * math.pi * self.spread * self.noise)
        return -0.5 * z.square().sum(1) - constant

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return 1 + math.log(2 * math.pi) + math.log(self.spread * self.noise)

    def _valley(self, along: Tensor) -> Tensor:
        return self.curvature * (along.square() - self.spread**2)
