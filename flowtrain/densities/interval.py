"""Known laws p(x | c) of a number c of an interval: an angle, or a parameter of the density."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from flowtrain.densities.conditional import Case, Conditional, rows_by_number
from flowtrain.densities.density import Density
from flowtrain.densities.rotated import Rotated, rotate

CASES = 8  # values over which figures are averaged: Gauss-Legendre nodes of the interval
# Nodes of the entropy, more and more until they agree. Of 8 that of rings whose noise is drawn from
# [0.01, 1] is 1.4e-3 nats off.
FINER, ACCURACY = (16, 32, 64), 1e-6
VALUES = 256  # of a parameter among the points of a sample: a density is built for each


@dataclass(frozen=True)
class Interval:
    """An interval from which a number is drawn uniformly; its context has mean 0, deviation 1.

    Args:
        low, high: its ends.

    Raises:
        ValueError: it is empty or not finite.

    >>> interval = Interval(0.0, 3.0)
    >>> interval.decode(interval.encode(torch.tensor([1.5, 3.0]))).float().tolist()
    [1.5, 3.0]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(
                f"interval must be two rising numbers, got [{self.low:g}, {self.high:g}]"
            )

    @property
    def mean(self) -> float:
        """Its middle."""
        return (self.low + self.high) / 2

    @property
    def std(self) -> float:
        """The deviation of a number that is uniform in it."""
        return (self.high - self.low) / math.sqrt(12)

    def at(self, fraction: Tensor) -> Tensor:
        """Return the numbers at fractions of the way through, in [0, 1], of the same shape."""
        return self.low + (self.high - self.low) * fraction

    def encode(self, numbers: Tensor) -> Tensor:
        """Return the context of numbers, (n,) -> (n, 1)."""
        return ((numbers - self.mean) / self.std)[:, None]

    def decode(self, context: Tensor) -> Tensor:
        """Return the numbers of a context, (n, 1) -> (n,), in float64."""
        return self.mean + self.std * context[:, 0].double()

    def cases(self, name: str, at: Callable[[Tensor], Density]) -> list[Case]:
        """Return cases whose weighted sum is near the mean over the interval.

        Args:
            name: of the condition.
            at: from a context, (1,), to p(x | c).
        """
        rule = self.rule(CASES)
        values = [float(self.decode(c[None])) for c, _ in rule]
        digits = 4  # or as many as tell the values of a narrow interval apart
        while digits < 17 and len({f"{value:.{digits}g}" for value in values}) < len(values):
            digits += 1
        return [
            Case(f"{name}={value:.{digits}g}", weight, c, at(c))
            for value, (c, weight) in zip(values, rule, strict=True)
        ]

    def rule(self, count: int) -> list[tuple[Tensor, float]]:
        """Return contexts, (1,), and their weights, whose sum is 1: Gauss-Legendre's nodes."""
        nodes, weights = leggauss(count)
        context = torch.from_numpy(nodes * math.sqrt(3))[:, None]
        return [*zip(context, (weights / 2).tolist(), strict=True)]


class Rotations(Conditional):
    """A density turned about the origin by a given angle, uniform in an interval.

    Args:
        density: at angle 0.
        interval: of the angle, in radians.

    Raises:
        ValueError: the density is not of points in the plane.

    >>> from flowtrain.densities import GaussianMixture
    >>> blob = GaussianMixture(
    ...     means=[[2.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 0.25]]], weights=[1.0])
    >>> law = Rotations(blob, Interval(0.0, 3.0))
    >>> law.entropy == blob.entropy, law.at(torch.zeros(1)).angle.item()  # in the middle
    (True, 1.5)
    """

    name = "rotation"
    context_dim = 1

    def __init__(self, density: Density, interval: Interval) -> None:
        if density.dim != 2:
            raise ValueError("condition=rotation needs points in a plane; leave it null")
        self.density = density
        self.interval = interval
        corner = torch.stack(density.window).abs().amax(0).norm().repeat(2)
        self.window = (-corner, corner)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        angle = self.interval.at(torch.rand(n, dtype=torch.float64, generator=generator))
        x = rotate(self.density.sample(n, generator), angle)
        return x, self.interval.encode(angle)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return self.density.log_prob(rotate(x, -self.interval.decode(context).to(x)))

    @property
    def entropy(self) -> float:
        return self.density.entropy

    def at(self, context: Tensor) -> Density:
        return Rotated(self.density, float(self.interval.decode(context[None])))

    @cached_property
    def cases(self) -> Sequence[Case]:
        return self.interval.cases(self.name, self.at)


class Varied(Conditional):
    """A density given one of its parameters, uniform in an interval.

    Each value needs a density of its own, built once. So the points of a sample share `VALUES`
    values, drawn anew for each sample and evenly: one in each part of the interval. The law of a
    point and its value is exact; two points of a sample are independent but for that.

    Args:
        name: of the parameter.
        build: from its value to the density.
        interval: of the values.

    Raises:
        ValueError: `build` refuses a value at one of the ends, or between them.

    >>> from flowtrain.densities import Rings
    >>> law = Varied("noise", lambda noise: Rings(radii=[1.0], noise=noise), Interval(0.1, 0.3))
    >>> x, context = law.sample(5, torch.Generator().manual_seed(0))
    >>> x.shape, context.shape, law.log_prob(x, context).shape, law.at(torch.zeros(1)).noise
    (torch.Size([5, 2]), torch.Size([5, 1]), torch.Size([5]), 0.2)
    """

    context_dim = 1

    def __init__(self, name: str, build: Callable[[float], Density], interval: Interval) -> None:
        self.name = name
        self.interval = interval
        self._density = lru_cache(maxsize=4 * VALUES)(build)
        ends = [self._density(interval.low), self._density(interval.high)]
        lows, highs = zip(
            *(density.window for density in (*ends, *(case.density for case in self.cases))),
            strict=True,
        )
        self.dim = ends[0].dim
        self.window = (torch.stack(lows).amin(0), torch.stack(highs).amax(0))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        parts = max(1, min(n, VALUES))
        within = torch.rand(parts, dtype=torch.float64, generator=generator)
        values = self.interval.at((torch.arange(parts) + within) / parts)
        # As float32 has them, so that a flow's context stands for the very value that was drawn.
        context = self.interval.encode(values).float().double()
        which = torch.randint(parts, (n,), generator=generator)
        x = torch.empty(n, self.dim, dtype=torch.float64)
        for index, rows in rows_by_number(which):
            x[rows] = self.at(context[index]).sample(len(rows), generator)
        return x, context[which]

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        values, which = context.unique(dim=0, return_inverse=True)
        log_p = x.new_zeros(len(x))
        for index, rows in rows_by_number(which):
            log_p = log_p.index_put((rows,), self.at(values[index]).log_prob(x[rows]))
        return log_p

    @cached_property
    def entropy(self) -> float:
        before = sum(case.weight * case.density.entropy for case in self.cases)
        for count in FINER:
            found = sum(weight * self.at(c).entropy for c, weight in self.interval.rule(count))
            if abs(found - before) < ACCURACY:
                break
            before = found
        return found

    def at(self, context: Tensor) -> Density:
        return self._density(float(self.interval.decode(context[None])))

    @cached_property
    def cases(self) -> Sequence[Case]:
        return self.interval.cases(self.name, self.at)
