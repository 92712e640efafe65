"""Known laws p(x | c): a mixture's points by component, a density turned by a given angle."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.rotated import Rotated, rotate

CASES = 8  # angles over which figures of a turning density are averaged: Gauss-Legendre nodes


@dataclass(frozen=True)
class Case:
    """A condition at which figures are taken, and how much it counts.

    Attributes:
        label: in words, as at the command line.
        weight: its probability, or a quadrature's weight.
        context: in numbers, (context_dim,).
        density: p(x | c).

    >>> from flowtrain.densities import Rings
    >>> case = Components(Rings(radii=[1.0, 2.0], noise=0.1)).cases[1]
    >>> case.label, case.weight, case.context.tolist(), case.density.radii.tolist()
    ('component=1', 0.5, [0.0, 1.0], [2.0])
    """

    label: str
    weight: float
    context: Tensor
    density: Density


class Conditional(ABC):
    """A law of points given a condition, and the law of the condition, both exact.

    Attributes:
        name: of the condition.
        dim: d, of the points.
        context_dim: numbers that encode a condition.
        window: corners (low, high) of a box that holds all but about 1e-8 of the points, each (d,).

    >>> from flowtrain.densities import Rings
    >>> law: Conditional = Components(Rings(radii=[1.0, 2.0], noise=0.1))
    >>> law.name, law.context_dim
    ('component', 2)
    """

    dim: int = 2
    name: str
    context_dim: int
    window: tuple[Tensor, Tensor]

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n points, (n, d), and the condition of each, (n, context_dim), float64 on the CPU.

        All chance is from `generator`.
        """

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Evaluate log p(x | c) in nats, (n, d) and (n, context_dim) -> (n,), in the dtype of x."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """The entropy of a point given its condition, E[H(x | c)], in nats."""

    @abstractmethod
    def at(self, context: Tensor) -> Density:
        """Return p(x | c) of one condition, (context_dim,)."""

    @property
    @abstractmethod
    def cases(self) -> Sequence[Case]:
        """The conditions over which figures are averaged; their weights sum to 1."""


class Components(Conditional):
    """A mixture's points given the component that they are of, one-hot.

    Args:
        mixture: with two components or more.

    Raises:
        ValueError: it has none.

    >>> from flowtrain.densities import Rings
    >>> law = Components(Rings(radii=[1.0, 2.0], noise=0.1))
    >>> x, context = law.sample(5, torch.Generator().manual_seed(0))
    >>> x.shape, context.sum(1).tolist(), law.log_prob(x, context).shape
    (torch.Size([5, 2]), [1.0, 1.0, 1.0, 1.0, 1.0], torch.Size([5]))
    >>> 0 < Rings(radii=[1.0, 2.0], noise=0.1).entropy - law.entropy < 0.6932  # at most log 2
    True
    """

    name = "component"

    def __init__(self, mixture: Density) -> None:
        self.parts = tuple(mixture.components())
        if len(self.parts) < 2:
            raise ValueError("this density has no components to be given; try condition=rotation")
        self.context_dim = len(self.parts)
        self.dim, self.window = mixture.dim, mixture.window
        self.weights = torch.tensor([weight for weight, _ in self.parts], dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        x = torch.empty(n, self.dim, dtype=torch.float64)
        for index, (_, part) in enumerate(self.parts):
            rows = which == index
            x[rows] = part.sample(int(rows.sum()), generator)
        return x, torch.nn.functional.one_hot(which, self.context_dim).double()

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        which = context.argmax(1)
        log_p = x.new_zeros(len(x))
        for index, (_, part) in enumerate(self.parts):
            (rows,) = (which == index).nonzero(as_tuple=True)
            if len(rows):
                log_p = log_p.index_put((rows,), part.log_prob(x[rows]))
        return log_p

    @cached_property
    def entropy(self) -> float:
        return sum(weight * part.entropy for weight, part in self.parts)

    def at(self, context: Tensor) -> Density:
        return self.parts[int(context.argmax())][1]

    @property
    def cases(self) -> Sequence[Case]:
        one_hot = torch.eye(self.context_dim, dtype=torch.float64)
        return [
            Case(f"component={index}", weight, one_hot[index], part)
            for index, (weight, part) in enumerate(self.parts)
        ]


class Rotations(Conditional):
    """A density turned about the origin by a given angle, uniform in an interval.

    The angle is encoded as one number, of mean 0 and deviation 1. Figures are averaged over
    Gauss-Legendre nodes of the interval.

    Args:
        density: at angle 0.
        low, high: ends of the interval, in radians.

    Raises:
        ValueError: the interval is empty or not finite.

    >>> from flowtrain.densities import GaussianMixture
    >>> blob = GaussianMixture(
    ...     means=[[2.0, 0.0]], covariances=[[[1.0, 0.0], [0.0, 0.25]]], weights=[1.0])
    >>> law = Rotations(blob, low=0.0, high=3.0)
    >>> law.entropy == blob.entropy, law.at(torch.zeros(1)).angle.item()  # in the middle
    (True, 1.5)
    """

    name = "rotation"
    context_dim = 1

    def __init__(self, density: Density, *, low: float, high: float) -> None:
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"interval must be two rising numbers, got [{low:g}, {high:g}]")
        self.density = density
        self.low, self.high = low, high
        self.mean, self.std = (low + high) / 2, (high - low) / math.sqrt(12)
        corner = torch.stack(density.window).abs().amax(0).norm().repeat(2)
        self.window = (-corner, corner)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        uniform = torch.rand(n, dtype=torch.float64, generator=generator)
        angle = self.low + (self.high - self.low) * uniform
        x = rotate(self.density.sample(n, generator), angle)
        return x, ((angle - self.mean) / self.std)[:, None]

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        angle = self.mean + self.std * context[:, 0]
        return self.density.log_prob(rotate(x, -angle.to(x)))

    @property
    def entropy(self) -> float:
        return self.density.entropy

    def at(self, context: Tensor) -> Density:
        return Rotated(self.density, self.mean + self.std * float(context[0]))

    @cached_property
    def cases(self) -> Sequence[Case]:
        nodes, weights = leggauss(CASES)
        return [
            Case(f"rotation={self.mean + self.std * float(c):.4g}", weight / 2, c, self.at(c))
            for c, weight in zip(
                torch.from_numpy(nodes * math.sqrt(3))[:, None], weights.tolist(), strict=True
            )
        ]


def conditional(density: Density, condition: str, interval: Sequence[float] | None) -> Conditional:
    """Return the law of a density's points given a condition.

    Args:
        density: whose points they are.
        condition: "component" or "rotation".
        interval: of the rotation's angle, two numbers in radians.

    Raises:
        ValueError: the density has no components, or the interval is refused.

    >>> from flowtrain.densities import Rings
    >>> conditional(Rings(radii=[1.0, 2.0], noise=0.1), "component", None).context_dim
    2
    """
    if condition == "component":
        return Components(density)
    assert interval is not None
    low, high = interval
    return Rotations(density, low=low, high=high)


def log_prob_under(density: Density | Conditional, x: Tensor, context: Tensor | None) -> Tensor:
    """Return the log-density in nats of points, or of points given their conditions, (n,).

    >>> from flowtrain.densities import Rings
    >>> log_prob_under(Rings(radii=[1.0], noise=0.1), torch.zeros(5, 2), None).shape
    torch.Size([5])
    """
    if isinstance(density, Density):
        return density.log_prob(x)
    assert context is not None
    return density.log_prob(x, context)
