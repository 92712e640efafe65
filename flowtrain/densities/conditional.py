"""Known laws p(x | c): their contract, and a mixture's points by component."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowtrain.densities.density import Density
from flowtrain.densities.numerics import draw_kinds


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
        which = draw_kinds(self.weights, n, generator)
        x = torch.empty(n, self.dim, dtype=torch.float64)
        for index, rows in rows_by_number(which):
            x[rows] = self.parts[index][1].sample(len(rows), generator)
        return x, torch.nn.functional.one_hot(which, self.context_dim).double()

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        which = context.argmax(1)
        log_p = x.new_zeros(len(x))
        for index, rows in rows_by_number(which):
            log_p = log_p.index_put((rows,), self.parts[index][1].log_prob(x[rows]))
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


def rows_by_number(which: Tensor) -> list[tuple[int, Tensor]]:
    """Return each number that occurs in `which`, (n,), rising, and its positions there, (k,).

    >>> [(number, rows.tolist()) for number, rows in rows_by_number(torch.tensor([2, 0, 2]))]
    [(0, [1]), (2, [0, 2])]
    """
    order = which.argsort(stable=True)
    found, counts = which.unique(return_counts=True)
    return list(zip(found.tolist(), order.split(counts.tolist()), strict=True))
